// A private server on the loopback interface: a random port, an unguessable path, and only the files it is given.

import { randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";

const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
// The first two isolate the page: only then has it shared memory, hence threads, and a fine clock.
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
};

// Serve `files` (name -> path); answers with the address that the names are relative to.
export async function serve(files) {
  const root = `/${randomBytes(16).toString("hex")}/`;
  const server = createServer(async (request, response) => {
    const name = request.url.startsWith(root) ? request.url.slice(root.length) : "";
    const path = files.get(name);
    const found = path && (await stat(path).catch(() => null));
    if (!found) return response.writeHead(404, HEADERS).end();
    const type = TYPES[extname(path)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
    return createReadStream(path).on("error", () => response.destroy()).pipe(response);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return { address: `http://127.0.0.1:${server.address().port}${root}`, close: () => server.close() };
}
