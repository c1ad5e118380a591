// The requests of the page. An answer that is an error becomes an Error with the server's words and `status`.
// Without an answer the Error has no status.

let dataset = ""; // the id of the data set of this page: the server changes nothing of another one

export const belongTo = (id) => { dataset = id; };

const ARRAYS = { uint8: Uint8Array, int16: Int16Array, float32: Float32Array };

async function request(path, options = {}) {
  const headers = { "X-Scribbleseg": dataset, ...options.headers };
  const answer = await fetch(`/api/${path}`, { ...options, headers }).catch(() => {
    throw new Error("The server does not answer. If it has ended, start scribbleseg draw again.");
  });
  if (answer.ok) return answer;
  const text = await answer.text();
  let words = text;
  try { words = JSON.parse(text).error; } catch { /* the text itself is the message */ }
  throw Object.assign(new Error(words), { status: answer.status });
}

const of = (name) => `cases/${encodeURIComponent(name)}`;
const json = (body, method = "POST") => ({ method, body: JSON.stringify(body) });
const ifMatch = (version) => ({ "If-Match": `"${version}"` });

export const getSession = async () => (await request("session")).json();
export const getCase = async (name) => (await request(of(name))).json();
export const getNext = async () => (await request("next")).json();
export const nameClasses = async (classes) => (await request("classes", json({ classes }))).json();
export const review = (name, reviewed) => request(`${of(name)}/reviewed`, json({ reviewed }, "PUT"));
export const startUpdate = async (name) => (await request("update", json({ case: name }))).json();
export const stopUpdate = async () => (await request("update", { method: "DELETE" })).json();
export const exportMasks = async (folder, reviewed) => (await request("export", json({ folder, reviewed }))).json();

// kind: image, strokes, prediction or uncertainty. Returns {data, rows, columns, numbers, version}; numbers: per pixel.
export async function getPlane(name, kind, axis, index, channel = 0) {
  const query = kind === "image" ? `?channel=${channel}` : "";
  const answer = await request(`${of(name)}/${kind}/${axis}/${index}${query}`);
  const header = (key) => answer.headers.get(key);
  const data = new ARRAYS[header("X-Type")](await answer.arrayBuffer());
  const rows = +header("X-Rows"), columns = +header("X-Columns");
  return { data, rows, columns, numbers: data.length / (rows * columns), version: (header("ETag") ?? "").replaceAll('"', "") };
}

// Returns {version, drawn}. status 412: the strokes were changed elsewhere.
export const putSlice = async (name, index, data, version) =>
  (await request(`${of(name)}/strokes/${index}`, { method: "PUT", body: data, headers: ifMatch(version) })).json();

// Both return {version, drawn}; acceptCase also `accepted`, the key that restoreCase takes. reviewed: as it was before.
export const acceptCase = async (name, version) =>
  (await request(`${of(name)}/accept`, { method: "POST", headers: ifMatch(version) })).json();
export const restoreCase = async (name, version, accepted, reviewed) =>
  (await request(`${of(name)}/restore`, { ...json({ accepted, reviewed }), headers: ifMatch(version) })).json();
