// The status table: this worker's rows page by page, and one row by its ID.

const $ = (id) => document.getElementById(id);

function say(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function ask(url) {
  try {
    const body = await (await fetch(url)).json();
    say(body.success ? "" : body.message);
    return body.success ? body : null;
  } catch {
    say("The server does not answer; is it running?");
    return null;
  }
}

function cell(text, className = "") {
  const made = document.createElement("td");
  made.textContent = text ?? "";
  made.className = className;
  return made;
}

function rowOf(row) {
  const made = document.createElement("tr");
  const id = cell("", "id");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = row.imageId;
  button.addEventListener("click", () => look(row.imageId));
  id.append(button);
  const done = row.steps.filter((step) => step.status === "completed").length;
  made.append(
    id,
    cell(row.tenantId),
    cell(row.status, `state-${row.status}`),
    cell(`${done} of ${row.steps.length} done`),
    cell(row.uploadedAt),
    cell(row.lastUpdated),
    cell(row.errorMessage),
  );
  return made;
}

async function look(imageId) {
  $("image-id").value = imageId;
  const body = await ask(`/tables/image_status/${encodeURIComponent(imageId)}`);
  $("found").hidden = !body;
  $("found").textContent = body ? JSON.stringify(body.row, null, 2) : "";
}

async function page(after) {
  const query = new URLSearchParams({ limit: "50" });
  if (after) query.set("after", after);
  const body = await ask(`/tables/image_status?${query}`);
  if (!body) return;
  $("worker").textContent = body.worker;
  $("rows").replaceChildren(...body.rows.map(rowOf));
  $("empty").hidden = body.rows.length > 0;
  $("next").hidden = !body.nextAfter;
  $("next").onclick = () => page(body.nextAfter);
}

$("lookup").addEventListener("submit", (event) => {
  event.preventDefault();
  look($("image-id").value.trim());
});
page(null);
