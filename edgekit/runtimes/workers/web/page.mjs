// The page's side: what `driver.mjs` asks for. Files come from its server, by names relative to this one.

import { answer, execute, JobError } from "./harness.mjs";
import { sit } from "./turns.mjs";

if (!crossOriginIsolated) throw new Error("the page is not isolated: it has no threads, and a coarse clock");

const LIBRARIES = { "onnxruntime-web": "./onnxruntime-web/ort.wasm.min.mjs" };

const host = {
  tick: 0.005, // of performance.now() in an isolated page
  cpu: () => null, // a page has no clock of processor time
  library: (name) => import(LIBRARIES[name]),
  json: async (path) => (await fetched(path)).json(),
  bytes: async (path) => new Uint8Array(await (await fetched(path)).arrayBuffer()),
};

async function fetched(path) {
  const found = await fetch(path);
  if (!found.ok) throw new JobError("bad_input", `${path} cannot be read (${found.status})`);
  return found;
}

const worker = (name) => import(`./${name}`);

export const single = (job, name) => answer(async () => execute(await worker(name), job, host));

export const turns = (job, names) => answer(async () => sit(job, await Promise.all(names.map(worker)), host));
