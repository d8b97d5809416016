// Runs an ONNX text classifier by WebAssembly. The rows come as token ids: there is no tokenizer in a page.

import { JobError } from "./harness.mjs";

const CODES = { 6: "unsupported_model", 9: "unsupported_model" }; // RUNTIME_EXCEPTION, NOT_IMPLEMENTED

export async function open(job, host) {
  const ort = await host.library("onnxruntime-web");
  ort.env.wasm.numThreads = job.threads;
  ort.env.logLevel = "error";
  const options = {
    executionProviders: [job.provider],
    graphOptimizationLevel: "all",
    executionMode: "sequential",
    logSeverityLevel: 3,
  };
  const session = await opened(ort, await host.bytes(job.model), options);
  if (ort.env.wasm.numThreads !== job.threads) // without shared memory it goes on with one, without a word
    throw new JobError("provider", `asked for ${job.threads} threads, it runs on ${ort.env.wasm.numThreads}`);
  return new Classifier(ort, session, job);
}

async function opened(ort, bytes, options) {
  try {
    return await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    const message = readable(error);
    const unknown = /not a registered function|Could not find an implementation/.test(message);
    throw new JobError(unknown ? "unsupported_model" : CODES[code(error)] ?? "bad_model", message);
  }
}

class Classifier {
  constructor(ort, session, job) {
    Object.assign(this, { ort, session, inputs: job.inputs });
    this.info = { name: "onnxruntime-web", version: ort.env.versions.web, providers: [job.provider] };
    const known = ["input_ids", "attention_mask", "token_type_ids"];
    const unknown = session.inputNames.filter((name) => !known.includes(name));
    if (unknown.length)
      throw new JobError("bad_model", `the model wants inputs that a text classifier has not: ${unknown}`);
    if (!session.outputNames.includes("logits"))
      throw new JobError("bad_model", `the model has no output 'logits', but ${session.outputNames}`);
  }

  length([ids]) {
    return ids.length;
  }

  // One batch, padded on the right to its longest row: int64 (batch, length).
  make(rows) {
    const shape = [rows.length, Math.max(...rows.map(([ids]) => ids.length))];
    const { pad_id, segments } = this.inputs;
    const filled = (value) => new BigInt64Array(shape[0] * shape[1]).fill(BigInt(value));
    const arrays = { input_ids: filled(pad_id), attention_mask: filled(0), token_type_ids: filled(0) };
    rows.forEach(([ids, types], row) =>
      ids.forEach((id, at) => {
        const place = row * shape[1] + at;
        arrays.input_ids[place] = BigInt(id);
        arrays.attention_mask[place] = 1n;
        if (segments) arrays.token_type_ids[place] = BigInt(types[at]);
      }),
    );
    return Object.fromEntries(
      this.session.inputNames.map((name) => [name, new this.ort.Tensor("int64", arrays[name], shape)]),
    );
  }

  async run(feeds) {
    try {
      return (await this.session.run(feeds, ["logits"])).logits;
    } catch (error) {
      throw new JobError("inference", readable(error));
    }
  }

  // Each row's logits, in a list; of a model that answers token by token those of its own tokens.
  logits(output, rows) {
    const width = output.dims.at(-1);
    const byToken = output.dims.length === 3;
    const places = byToken ? output.dims[1] : 1;
    const place = (at) => Array.from(output.data.subarray(at * width, (at + 1) * width));
    return rows.map((row, at) =>
      Array.from({ length: byToken ? this.length(row) : 1 }, (_, token) => place(at * places + token)),
    );
  }
}

// "failed to ... ERROR_CODE: 9, ERROR_MESSAGE: Could not find ..."
function code(error) {
  return Number(/ERROR_CODE: (\d+)/.exec(error.message)?.[1]);
}

function readable(error) {
  return String(error.message ?? error).replace(/^.*ERROR_MESSAGE: /s, "");
}
