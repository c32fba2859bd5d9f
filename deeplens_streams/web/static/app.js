// The first page: add pictures, watch their steps, see what is like one.
// Everything from the server goes into the page as text, never as markup.

import { $, ask, openSocket, say, show, wireKey } from "./session.js";

const FINAL = new Set(["completed", "partial", "failed", "deleted"]);
const STEP_NAMES = {
  image_processing: "check",
  thumbnail_generation: "thumbnail",
  feature_extraction: "features",
  vector_indexing: "index",
};
const STEP_SIGNS = { pending: "○", in_progress: "◐", retrying: "↻", completed: "●", failed: "✕", skipped: "–" };
const PARALLEL_UPLOADS = 4;
const POLL_MS = 1000;
const SOCKET_TRIES = 2;

let listCursor = null;
let listTurn = 0; // answers to an older question are dropped
let searchTurn = 0;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const tenant = () => $("tenant").value.trim();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Uploading -----------------------------------------------------------------------------------

const waiting = [];
let running = 0;

function addFiles(files) {
  say("");
  for (const file of files) waiting.push({ file, card: uploadCard(file), tenant: tenant() });
  $("uploads-section").hidden = $("uploads").childElementCount === 0;
  pump();
}

function pump() {
  while (running < PARALLEL_UPLOADS && waiting.length) {
    running += 1;
    const job = waiting.shift();
    upload(job)
      .catch((error) => job.card.fail(error.message))
      .finally(() => {
        running -= 1;
        pump();
      });
  }
}

async function upload({ file, card, tenant: owner }) {
  const form = new FormData();
  form.append("tenantId", owner);
  form.append("uploadedBy", "web page");
  form.append("file", file, file.name);
  card.state("uploading");
  const answer = await ask("/api/v1/images/upload", { method: "POST", body: form });
  card.state(answer.status);
  follow(answer, card); // not awaited: the next upload need not wait for this one's processing
}

function uploadCard(file) {
  const url = URL.createObjectURL(file);
  const preview = element("img", { alt: "", src: url });
  preview.addEventListener("error", () => preview.removeAttribute("src"), { once: true });
  const state = element("span", { textContent: "waiting" });
  const bar = element("progress", { max: 100, value: 0 });
  bar.setAttribute("aria-label", `Progress of ${file.name}`);
  const steps = element("span", { className: "steps" });
  const item = element("li", {}, preview, element("span", { className: "name", textContent: file.name, title: file.name }), state, bar, steps);
  item.dataset.state = "waiting";
  $("uploads").prepend(item);
  const release = () => URL.revokeObjectURL(url);
  const setState = (name) => {
    item.dataset.state = name;
    state.textContent = name;
    state.className = `state-${name}`;
  };
  return {
    state: setState,
    show(status) {
      setState(status.status);
      item.dataset.imageId = status.imageId;
      bar.value = status.percentComplete;
      steps.replaceChildren(
        ...status.processingSteps.map((step) =>
          element("span", {
            className: step.status,
            textContent: `${STEP_SIGNS[step.status] ?? "?"} ${STEP_NAMES[step.step] ?? step.step}${step.duration == null ? "" : ` ${Math.round(step.duration)} ms`}`,
            title: step.errorMessage ?? `${step.step}: ${step.status}`,
          }),
        ),
      );
      if (status.errorMessage) steps.append(element("span", { className: "failed", textContent: status.errorMessage }));
      if (FINAL.has(status.status)) release();
    },
    fail(message) {
      setState("failed");
      bar.hidden = true;
      steps.replaceChildren(element("span", { className: "failed", textContent: message }));
      release();
    },
  };
}

// Following -----------------------------------------------------------------------------------

async function follow({ webSocketUrl, statusCheckUrl }, card) {
  try {
    let ended = false;
    for (let attempt = 0; attempt < SOCKET_TRIES && !ended; attempt += 1) ended = await followSocket(webSocketUrl, card);
    if (!ended) await followPolling(statusCheckUrl, card);
    await listNewest();
  } catch (error) {
    card.fail(error.message);
  }
}

/** Show changes until the last one; resolves to false if the socket broke before it. */
function followSocket(path, card) {
  return new Promise((resolve) => {
    const socket = openSocket(path);
    let ended = false;
    socket.addEventListener("message", ({ data }) => {
      const status = JSON.parse(data);
      card.show(status);
      ended = FINAL.has(status.status);
    });
    socket.addEventListener("close", () => resolve(ended));
  });
}

async function followPolling(path, card) {
  for (;;) {
    try {
      const status = await ask(path);
      card.show(status);
      if (FINAL.has(status.status)) return;
    } catch (error) {
      if (error.status === 404) throw error; // everything else may pass
    }
    await pause(POLL_MS);
  }
}

// Searching -----------------------------------------------------------------------------------

function searchByFile(file) {
  const form = new FormData();
  form.append("queryImage", file, file.name);
  const url = URL.createObjectURL(file);
  return search(form, url, file.name).finally(() => URL.revokeObjectURL(url));
}

function searchById(image) {
  const form = new FormData();
  form.append("imageId", image.imageId);
  return search(form, image.thumbnailUrl ?? `/api/v1/images/${image.imageId}/content`, image.fileName);
}

async function search(form, pictureUrl, name) {
  const turn = ++searchTurn;
  say("");
  form.append("tenantId", tenant());
  form.append("threshold", "-1");
  form.append("limit", "12");
  $("results-section").hidden = false;
  $("query-name").textContent = name;
  $("results-message").textContent = "Searching…";
  $("results").replaceChildren();
  const shown = loaded($("query"), pictureUrl);
  try {
    const answer = await ask("/api/v1/images/search", { method: "POST", body: form });
    if (turn !== searchTurn) return;
    $("results-message").textContent = `${answer.message} (${Math.round(answer.queryProcessingTimeMs)} ms)`;
    $("results").replaceChildren(...answer.results.map((hit) => pictureCard(hit, hit.similarityScore)));
    $("results-title").focus();
    $("results-section").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (turn !== searchTurn) return;
    $("results-section").hidden = true;
    say(error.message);
  }
  await shown; // the picture's address is let go of afterwards
}

function loaded(image, url) {
  return new Promise((resolve) => {
    image.onload = image.onerror = resolve;
    show(image, url);
  });
}

// Pictures ------------------------------------------------------------------------------------

function pictureCard(image, score = null) {
  const frame = element("span", { className: "frame", textContent: "no preview" });
  if (image.thumbnailUrl) {
    const picture = element("img", { alt: "", loading: "lazy" });
    picture.addEventListener("error", () => picture.remove(), { once: true });
    show(picture, image.thumbnailUrl);
    frame.append(picture);
  }
  const button = element("button", { type: "button", title: image.fileName ?? "" }, frame);
  button.append(element("span", { className: "name", textContent: image.fileName ?? image.imageId }));
  if (score !== null) button.append(element("span", { className: "score", textContent: score.toFixed(3) }));
  button.setAttribute("aria-label", `Find pictures like ${image.fileName ?? image.imageId}`);
  button.dataset.imageId = image.imageId;
  button.addEventListener("click", () => searchById(image));
  return element("li", {}, button);
}

async function listNewest({ more = false } = {}) {
  const turn = ++listTurn;
  const query = new URLSearchParams({ tenantId: tenant(), limit: "24" });
  if (more && listCursor) query.set("cursor", listCursor);
  try {
    const page = await ask(`/api/v1/images?${query}`);
    if (turn !== listTurn) return;
    const cards = page.images.map((image) => pictureCard(image));
    if (more) $("newest").append(...cards);
    else $("newest").replaceChildren(...cards);
    listCursor = page.nextCursor;
    $("more").hidden = !listCursor;
    $("newest-empty").hidden = $("newest").childElementCount > 0;
    $("newest-hint").hidden = !$("newest-empty").hidden;
  } catch (error) {
    if (turn === listTurn) say(error.message);
  }
}

// Health --------------------------------------------------------------------------------------

async function checkHealth() {
  let body;
  try {
    body = await ask("/health/ready");
  } catch (error) {
    body = error.body ?? { success: false, message: error.message, checks: {} };
  }
  const pill = $("health");
  pill.textContent = body.success ? "ready" : "not ready";
  pill.className = `pill ${body.success ? "good" : "bad"}`;
  pill.title = Object.entries(body.checks ?? {})
    .map(([name, check]) => `${name}: ${check.ok ? "ok" : check.detail}`)
    .join("\n") || body.message;
  $("model").textContent = body.model?.name ?? "";
  $("warning").textContent = body.warning ?? "";
  $("warning").hidden = !body.warning;
  setTimeout(checkHealth, body.success ? 15000 : 2000);
}

// Wiring --------------------------------------------------------------------------------------

function wireZone(zoneId, inputId, take) {
  const zone = $(zoneId);
  const input = $(inputId);
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    if (files.length) take(files);
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
}

// A picture dropped beside a zone must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
wireZone("add-zone", "add", addFiles);
wireZone("find-zone", "find", (files) => searchByFile(files[0]));
$("results-close").addEventListener("click", () => {
  searchTurn += 1;
  $("results-section").hidden = true;
});
$("more").addEventListener("click", () => listNewest({ more: true }));
$("tenant").addEventListener("change", () => {
  localStorage.setItem("tenant", tenant());
  say("");
  searchTurn += 1;
  $("results-section").hidden = true;
  listNewest();
});
$("tenant").value = localStorage.getItem("tenant") || "demo";

/** A key carries its tenant; the operator's leaves the choice. */
async function begin() {
  try {
    $("tenant").value = (await ask("/api/v1/usage")).tenantId;
    $("tenant").disabled = true;
  } catch {
    $("tenant").disabled = false; // keys are off, or it is no tenant's
  }
  await listNewest();
}

wireKey(begin);
checkHealth();
begin();
