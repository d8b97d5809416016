// Runs work in headless Chromium: `node driver.mjs MODULES CHROMIUM SANDBOX WORKER JOB.json RESULT.json`.
// MODULES: the folder `node_modules` with onnxruntime-web and playwright-core; SANDBOX: "yes" or "no".

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { answer, JobError } from "./harness.mjs";
import { follow, write } from "./process.mjs";
import { serve } from "./server.mjs";
import { sitting } from "./turns.mjs";

const [modules, executablePath, sandbox, script, jobPath, resultPath] = process.argv.slice(2);
const ORT = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];

// Everything that a page may ask for, and the jobs with names in place of paths.
function shared(jobs) {
  const files = new Map();
  for (const name of readdirSync(import.meta.dirname)) files.set(name, join(import.meta.dirname, name));
  for (const name of ORT) files.set(`onnxruntime-web/${name}`, join(modules, "onnxruntime-web", "dist", name));
  const name = (path) => {
    const known = [...files].find(([, other]) => other === path)?.[0] ?? `files/${files.size}`;
    files.set(known, path);
    return known;
  };
  return { files, jobs: jobs.map((job) => ({ ...job, model: name(job.model), inputs: name(job.inputs) })) };
}

async function launch() {
  const { chromium } = createRequire(join(modules, "_"))("playwright-core");
  try {
    return await chromium.launch({ executablePath, chromiumSandbox: sandbox === "yes" });
  } catch (error) {
    throw new JobError("browser", `${executablePath} does not start: ${lastWords(error)}`);
  }
}

// Chromium's own complaint, if there is one, out of playwright's long report.
function lastWords(error) {
  const lines = error.message.split("\n").map((line) => line.trim());
  return lines.find((line) => /FATAL|ERROR|error while loading/.test(line)) ?? lines[0];
}

// Call a function of `page.mjs` in a fresh page, in a process of its own; adds the process's peak memory.
async function inPage(browser, address, entry, ...given) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(`${address}page.html`);
    const call = async ([entry, given]) => (await import(new URL("page.mjs", location.href)))[entry](...given);
    const found = await page.evaluate(call, [entry, given]);
    return { ...found, peak_rss_bytes: await peak(browser) };
  } catch (error) {
    if (/crashed/i.test(error.message))
      throw new JobError("out_of_memory", "the page crashed, most likely for want of memory");
    if (/closed/i.test(error.message)) throw new JobError("browser", "the browser ended in the middle of it");
    throw error;
  } finally {
    await context.close().catch(() => {});
  }
}

// Most bytes that a page's process held (Linux; elsewhere 0, not known). The largest: empty ones stand by.
async function peak(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const peaks = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => highWater(id));
  return Math.max(0, ...peaks);
}

function highWater(pid) {
  try {
    return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0; // it ended, or this is no Linux
  }
}

async function work() {
  const job = JSON.parse(readFileSync(jobPath, "utf8"));
  const { files, jobs } = shared(job.members?.map((member) => member.job) ?? [job]);
  const server = await serve(files);
  const browser = await launch();
  try {
    const single = (own, path) => inPage(browser, server.address, "single", own, basename(path));
    if (!job.members) return await single(jobs[0], script);
    const workers = job.members.map(({ command }) => command.at(-1));
    const members = jobs.map((own) => ({ job: own }));
    return await sitting(
      jobs.length,
      (at) => single({ ...jobs[at], mode: "cold" }, workers[at]),
      () => inPage(browser, server.address, "turns", { ...job, members }, workers.map((path) => basename(path))),
    );
  } finally {
    await browser.close().catch(() => {});
    server.close();
  }
}

follow();
process.env.TMPDIR = dirname(resultPath); // the browser's profile goes away with the work's folder
write(resultPath, await answer(work));
process.exit(0);
