// What every worker in JavaScript does around its runtime, in a page or in Node; its sibling in Python is `harness.py`.
// A worker exports `open(job, host)`, which answers with a model: {info, length(row), make(rows), run(batch),
// logits(output, rows)}. A host is where it runs: {library(name), json(path), bytes(path), cpu(): ms or null, tick: ms}.

const STEADY = 0.05; // two windows of warm-up whose medians differ by less are steady
const WARMUP_MS = 1000; // at most
const TICKS = 100; // of the host's clock that a sample spans at least, so that reading it adds at most 1%

export class JobError extends Error {
  // `kind` is for programs, the message for people.
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

// RESULT.json's content: what `work` answers with, or its error.
export async function answer(work) {
  try {
    return { schema: 1, peak_rss_bytes: 0, error: null, ...(await work()) };
  } catch (error) {
    const message = String(error.message ?? error);
    const kind = error instanceof JobError ? error.kind : "crash";
    return { schema: 1, peak_rss_bytes: 0, error: forMemory(error) ? OUT_OF_MEMORY : { kind, message } };
  }
}

const OUT_OF_MEMORY = { kind: "out_of_memory", message: "out of memory, of which WebAssembly has 4 GB at most" };

// Whether it was raised for want of memory: by an allocator, or by a size beyond 32 bits.
function forMemory(error) {
  return error instanceof RangeError || /bad_alloc|out of memory|SafeIntOnOverflow/i.test(error.message);
}

// The model, loaded and run once, with what that took.
export class Member {
  static async load(worker, job, host) {
    const inputs = await host.json(job.inputs);
    if (!inputs.rows) throw new JobError("bad_input", "the inputs hold no token ids");
    const begin = performance.now();
    const model = await worker.open({ ...job, inputs }, host);
    const member = new Member(model, job, inputs.rows, host);
    member.load_ms = performance.now() - begin;
    await member.first();
    return member;
  }

  constructor(model, job, rows, host) {
    Object.assign(this, { model, job, rows, host, wall: [], cpu: [], warmup: 0, repeats: 1 });
    const chosen = job.items === null ? rows : job.items.map((at) => rows[at]);
    if (!chosen.length || chosen.includes(undefined))
      throw new JobError("bad_input", chosen.length ? `an item beyond the ${rows.length} rows` : "no rows");
    const timed = job.mode === "predict" ? chosen.slice(0, job.batch) : chosen;
    this.feeds = split(timed, job.batch).map((part) => model.make(part));
  }

  async first() {
    const begin = performance.now();
    await this.model.run(this.feeds[0]);
    this.first_ms = performance.now() - begin;
  }

  // Logits of every row (or of every token of every row), in order. Rows of like length share a batch, so that little is padded.
  async predict() {
    const { model, rows, job } = this;
    const order = rows.map((_, at) => at).sort((a, b) => model.length(rows[a]) - model.length(rows[b]) || a - b);
    const logits = new Array(rows.length);
    for (const part of split(order, job.batch)) {
      const fed = part.map((at) => rows[at]);
      const found = model.logits(await model.run(model.make(fed)), fed);
      part.forEach((at, place) => (logits[at] = found[place]));
    }
    return logits.flat();
  }

  // Run `job.warmup` inferences and then on until steady, all that within a second (one at least); answers with the
  // milliseconds of one.
  async warmUp() {
    const { model, feeds, job } = this;
    const begin = performance.now();
    const window = Math.max(1, job.warmup >> 1);
    let before = 0;
    let times = [];
    do {
      const start = performance.now();
      await model.run(feeds[this.warmup++ % feeds.length]);
      times.push(performance.now() - start);
      if (times.length < window) continue;
      const now = median(times);
      if (this.warmup >= job.warmup && Math.abs(now - before) < STEADY * before) return now;
      [before, times] = [now, []];
    } while (performance.now() - begin < WARMUP_MS);
    return before || median(times);
  }

  // How often an inference that takes `ms` is repeated for one sample: the clock's ticks must not show.
  spanning(ms) {
    return Math.ceil((TICKS * this.host.tick) / Math.max(ms, this.host.tick));
  }

  // Time `count` batches from `start` on, each `repeats` times; milliseconds in all.
  async time(start, count) {
    const { model, feeds, repeats, host, wall, cpu } = this;
    const done = wall.length;
    for (let at = 0; at < count; at++) {
      const feed = feeds[(start + at) % feeds.length];
      const cpuBegin = host.cpu();
      const begin = performance.now();
      for (let again = 0; again < repeats; again++) await model.run(feed);
      const end = performance.now();
      wall.push((end - begin) / repeats);
      if (cpuBegin !== null) cpu.push((host.cpu() - cpuBegin) / repeats);
    }
    return wall.slice(done).reduce((sum, ms) => sum + ms, 0);
  }

  // Time a burst. It begins with one inference that does not count: others used the caches meanwhile.
  async burst(start, count) {
    await this.model.run(this.feeds[start % this.feeds.length]);
    return this.time(start, count);
  }

  // Whole passes until `seconds` (one at least), or exactly `iterations` inferences.
  async latency() {
    const { iterations, seconds } = this.job;
    if (iterations === null && seconds === null)
      throw new JobError("bad_input", "latency needs seconds or iterations");
    const begin = performance.now();
    const more = () =>
      iterations === null
        ? !this.wall.length || performance.now() - begin < seconds * 1e3
        : this.wall.length < iterations;
    while (more())
      await this.time(0, Math.min(this.feeds.length, (iterations ?? Infinity) - this.wall.length));
  }

  get result() {
    const { load_ms, first_ms, warmup, wall, cpu, model, job } = this;
    return { runtime: model.info, threads: job.threads, load_ms, first_ms, warmup, samples_ms: wall, cpu_ms: cpu };
  }
}

// One job from its start to its end; in mode "cold" that is the first inference.
export async function execute(worker, job, host) {
  const member = await Member.load(worker, job, host);
  if (job.mode === "cold") return member.result;
  if (job.mode === "predict") return { ...member.result, logits: await member.predict() };
  if (job.mode !== "latency") throw new JobError("bad_input", `unknown mode '${job.mode}'`);
  member.repeats = member.spanning(await member.warmUp());
  await member.latency();
  return member.result;
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function split(items, size) {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, at) => items.slice(at * size, (at + 1) * size));
}
