// Several files in one page or process take turns; its sibling for several processes is `duet_worker.py`. A cycle lets
// each time the same batches once, in random order; the next goes through them backwards (ABBA).

import { answer, Member } from "./harness.mjs";

const MOST_ITEMS = 64; // in a burst

// Each of `count` files goes alone into a fresh process first, which tells its load, first inference and peak memory:
// together, the first one would pay for compiling the runtime. Then they take turns.
export async function sitting(count, alone, together) {
  const cold = [];
  for (let at = 0; at < count; at++) {
    cold.push(await alone(at));
    if (cold[at].error) return { members: cold, cycles: [] };
  }
  const found = await together();
  const members = (found.members ?? []).map((member, at) => {
    const { load_ms, first_ms, peak_rss_bytes } = cold[at];
    return member.error ? member : { ...member, load_ms, first_ms, peak_rss_bytes };
  });
  return { ...found, members };
}

// Load the members one by one, let them take turns, and collect their results. Ends early where one cannot be loaded.
export async function sit(sitting, workers, host) {
  const members = [];
  let failure = null;
  let fastest = Infinity;
  for (const [at, { job }] of sitting.members.entries()) {
    const loaded = await answer(async () => {
      members.push(await Member.load(workers[at], job, host));
      fastest = Math.min(fastest, await members[at].warmUp());
    });
    if (loaded.error) {
      failure = loaded;
      members.length = at;
      break;
    }
  }
  for (const member of members) member.repeats = member.spanning(fastest);
  const cycles = failure ? [] : await takeTurns(members, sitting);
  const found = members.map((member) => ({ schema: 1, ...member.result, error: null }));
  return { members: failure ? [...found, failure] : found, cycles };
}

// Cycles until `seconds` are over; each says which batches it was about and in which order the members went.
async function takeTurns(members, { items, seconds, burst_ms, seed }) {
  const dice = seeded(seed);
  const probe = Math.min(3, items);
  let slowest = 0;
  for (const member of members)
    slowest = Math.max(slowest, (member.repeats * (await member.burst(0, probe))) / probe);
  const count = Math.max(1, Math.min(items, MOST_ITEMS, Math.round(burst_ms / slowest)));
  const cycles = [{ start: 0, count: probe, order: [], warm: true }];
  const order = members.map((_, at) => at);
  const begin = performance.now();
  for (let start = 0; performance.now() - begin < seconds * 1e3 || cycles.length < 3; ) {
    if (cycles.length % 2) {
      shuffle(order, dice);
      start = (start + count) % items;
    } else order.reverse();
    for (const at of order) await members[at].burst(start, count);
    cycles.push({ start, count, order: [...order], warm: false });
  }
  return cycles;
}

function shuffle(order, dice) {
  for (let at = order.length - 1; at > 0; at--) {
    const other = Math.floor(dice() * (at + 1));
    [order[at], order[other]] = [order[other], order[at]];
  }
}

// Numbers in [0, 1). Source: mulberry32 by Tommy Ettinger, public domain.
function seeded(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
