// Run one model in onnxruntime-web: in Node (`node worker.mjs JOB.json PACKAGE_FOLDER`) or, loaded
// by page.html, in a browser. Job and report are those of worker.py.

// The wasm module prints its profile: in a browser through console.log, which it binds when it
// starts, in Node by writing to standard output.
const printed = [];
console.log = (...text) => printed.push(...text.join(" ").split("\n"));

const ARRAYS = {
  float32: ["float32", Float32Array], float64: ["float64", Float64Array],
  int64: ["int64", BigInt64Array], uint64: ["uint64", BigUint64Array],
  int32: ["int32", Int32Array], uint32: ["uint32", Uint32Array],
  int16: ["int16", Int16Array], uint16: ["uint16", Uint16Array],
  int8: ["int8", Int8Array], uint8: ["uint8", Uint8Array], bool: ["bool", Uint8Array],
  float16: ["float16", globalThis.Float16Array ?? Uint16Array],
};

function tensors(ort, bytes, feed) {
  const made = {};
  for (const entry of feed) {
    const [type, Kind] = ARRAYS[entry.dtype];
    const end = entry.offset + entry.count * Kind.BYTES_PER_ELEMENT;
    made[entry.name] = new ort.Tensor(type, new Kind(bytes.slice(entry.offset, end)), entry.shape);
  }
  return made;
}

function packed(outputs) {
  const parts = [], index = [];
  let offset = 0;
  for (const output of outputs) {
    index.push(output.map(({ type, data, dims }) => {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      parts.push(bytes);
      offset += bytes.length;
      return { dtype: type, shape: dims, count: data.length, offset: offset - bytes.length };
    }));
  }
  const all = new Uint8Array(offset);
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return [index, all];
}

function kernels(lines) {
  const counts = {};
  for (const line of lines) {
    const operator = /"cat" : "Node".*"op_name" : "([^"]+)"/.exec(line);
    if (operator) counts[operator[1]] = (counts[operator[1]] ?? 0) + 1;
  }
  return counts;
}

export async function work(ort, job, io) {
  const report = { stage: "starting", machine: "wasm", onnxruntime: ort.env.versions.web };
  const write = (found) => io.report(Object.assign(report, found));
  try {
    ort.env.wasm.numThreads = 1;
    const open = async (name, more = {}) => ort.InferenceSession.create(
      new Uint8Array(await io.read(name)),
      { executionProviders: [job.execution_provider], logSeverityLevel: 3, ...more });
    await write({ stage: "loading the model" });
    const session = await open(job.model);
    const bytes = await io.read("feeds.bin");
    const feeds = job.feeds.map((feed) => tensors(ort, bytes, feed));
    const run = async (one, feed) => {
      const found = await one.run(feed);
      return one.outputNames.map((name) => found[name]);
    };
    await write({ stage: "running the model" });
    let started = performance.now();
    const outputs = [];
    for (const feed of feeds) {
      outputs.push(await run(session, feed));
      if (performance.now() - started > job.seconds * 1e3) break;
    }
    const [index, all] = packed(outputs);
    await io.write("outputs.bin", all);
    await write({ outputs: index, stage: "timing" });
    try {
      await rounds(job, open, run, session, feeds[0], io, write);
    } catch (error) {
      await write({ original_error: String(error.message ?? error) });
    }
    await write({ stage: "profiling" });
    printed.length = 0;
    const profiled = await open(job.model, { enableProfiling: true });
    await run(profiled, feeds[0]);
    profiled.endProfiling();
    await write({ kernels: kernels(printed), stage: "done", status: "ran" });
  } catch (error) {
    const reason = `${report.stage}: ${String(error.message ?? error)}`;
    await write({ status: "failed", reason });
  }
}

async function rounds(job, open, run, session, feed, io, write) {
  const original = await open(job.original);
  const [index, all] = packed([await run(original, feed)]);
  await io.write("floor.bin", all);
  await write({ original_outputs: index });
  await run(session, feed);
  let started = performance.now();
  await run(session, feed);
  const single = Math.max(performance.now() - started, 1e-3);
  const repeats = Math.max(1, Math.min(400, Math.floor(20 / single)));
  const timed = async (one) => {
    const begun = performance.now();
    for (let i = 0; i < repeats; i++) await run(one, feed);
    return (performance.now() - begun) / repeats;
  };
  // One round untimed: the engine compiles again what runs often.
  await timed(original);
  await timed(session);
  const times = [];
  started = performance.now();
  for (let i = 0; i < 15; i++) {
    const pair = i % 2 ? [await timed(session), await timed(original)].reverse()
      : [await timed(original), await timed(session)];
    times.push(pair);
    if (performance.now() - started > job.seconds * 1e3) break;
  }
  await write({ times });
}

if (typeof process !== "undefined" && process.versions?.node) {
  const fs = await import("node:fs/promises");
  const path = await import("node:path");
  const { createRequire } = await import("node:module");
  const [, , jobPath, packages] = process.argv;
  const folder = path.dirname(jobPath);
  const job = JSON.parse(await fs.readFile(jobPath, "utf8"));
  const report = (content) => fs.writeFile(path.join(folder, "report.json"), JSON.stringify(content));
  let ort;
  try {
    const require = createRequire(path.join(path.resolve(packages), "package.json"));
    const files = require("node:fs"), writeSync = files.writeSync;
    files.writeSync = (descriptor, text, ...rest) => {
      if (descriptor !== 1) return writeSync(descriptor, text, ...rest);
      console.log(text);
      return text.length;
    };
    ort = require("onnxruntime-web");
  } catch (error) {
    await report({ status: "absent", reason: `Node finds no onnxruntime-web in ${packages}` });
    process.exit(0);
  }
  await work(ort, job, {
    report,
    read: async (name) => {
      const content = await fs.readFile(path.join(folder, name));
      return content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength);
    },
    write: (name, bytes) => fs.writeFile(path.join(folder, name), bytes),
  });
}
