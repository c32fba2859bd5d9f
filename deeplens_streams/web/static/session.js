// What every page asks the API with: the key, where one is asked for, and one way to say errors.

const STORED = "deeplens-key"; // of this tab alone: it is gone with it
const PROTOCOL = "deeplens"; // a browser cannot set a header on a websocket, so its key is one of these

export const $ = (id) => document.getElementById(id);

export function say(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

const key = () => sessionStorage.getItem(STORED) ?? "";
const headers = () => (key() ? { "X-API-Key": key() } : {});

/** Ask the API; an answer that is no success becomes an Error with the API's own sentence. */
export async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: { ...headers(), ...options.headers } });
  } catch {
    throw new Error("The server does not answer; is it running?");
  }
  if (response.status === 401) $("key-label").hidden = false;
  let body = null;
  try {
    body = await response.json();
  } catch {
    throw new Error(`The server answered ${response.status} without a reason.`);
  }
  if (!body.success) throw Object.assign(new Error(body.message), { body, status: response.status });
  return body;
}

/** Show a picture of the API's; an `img` cannot send a key, so with one it is fetched. */
export async function show(image, url) {
  if (!key() || url.startsWith("blob:")) {
    image.src = url;
    return;
  }
  const response = await fetch(url, { headers: headers() });
  if (!response.ok) {
    image.dispatchEvent(new Event("error"));
    return;
  }
  const local = URL.createObjectURL(await response.blob());
  const release = () => URL.revokeObjectURL(local);
  image.addEventListener("load", release, { once: true });
  image.addEventListener("error", release, { once: true });
  image.src = local;
}

export function openSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return key() ? new WebSocket(url, [PROTOCOL, `${PROTOCOL}.key.${key()}`]) : new WebSocket(url);
}

/** Have a key asked for where it is needed; `changed` is called with each new one. */
export function wireKey(changed) {
  $("key-label").hidden = !key();
  $("key").value = key();
  $("key").addEventListener("change", () => {
    sessionStorage.setItem(STORED, $("key").value.trim());
    say("");
    changed();
  });
}
