// What a script of Node does as a process: end with its parent, and answer in one move.

import { renameSync, writeFileSync } from "node:fs";

// End when the parent is gone, however it went.
export function follow() {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(1), 1000).unref();
}

export function write(path, result) {
  writeFileSync(`${path}.part`, JSON.stringify(result));
  renameSync(`${path}.part`, path);
}
