// Runs a worker in Node: `node node.mjs MODULES WORKER JOB.json RESULT.json`. MODULES: a folder `node_modules`.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { answer, execute } from "./harness.mjs";
import { follow, write } from "./process.mjs";
import { sit, sitting } from "./turns.mjs";

const [modules, script, jobPath, resultPath] = process.argv.slice(2);
const require = createRequire(join(modules, "_"));

const host = {
  tick: 0.0001, // performance.now() counts nanoseconds here
  cpu: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e3;
  },
  library: async (name) => require(name),
  json: async (path) => JSON.parse(await readFile(path, "utf8")),
  bytes: (path) => readFile(path),
};

async function single(job) {
  const found = await execute(await import(pathToFileURL(script)), job, host);
  return { ...found, peak_rss_bytes: process.resourceUsage().maxRSS * 1024 };
}

// A file alone in a process of its own, up to its first inference.
function alone({ command, job }, folder) {
  const [own, result] = [join(folder, "cold.json"), join(folder, "cold-result.json")];
  writeFileSync(own, JSON.stringify({ ...job, mode: "cold" }));
  rmSync(result, { force: true });
  const child = spawnSync(command[0], [...command.slice(1), own, result], { stdio: ["ignore", "inherit", "inherit"] });
  const message = `the worker ended with ${child.signal ?? child.status}`;
  if (!existsSync(result)) return { error: { kind: "crash", message } };
  return JSON.parse(readFileSync(result, "utf8"));
}

async function work() {
  const job = JSON.parse(readFileSync(jobPath, "utf8"));
  if (!job.members) return single(job);
  const workers = await Promise.all(job.members.map(({ command }) => import(pathToFileURL(command.at(-1)))));
  const { members, folder } = job;
  return sitting(members.length, (at) => alone(members[at], folder), () => sit(job, workers, host));
}

follow();
write(resultPath, await answer(work));
process.exit(0);
