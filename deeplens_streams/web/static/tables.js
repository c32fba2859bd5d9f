// A table of the stream side: its partitions, its rows page by page, and one row by its key.
// The address says which: /tables, /tables/{name}, /tables/{name}/{key}.

import { $, ask, say, wireKey } from "./session.js";

// How the rows of a table are shown; those of any other are shown as JSON.
const COLUMNS = {
  image_status: {
    Tenant: (row) => row.tenantId,
    Status: (row) => row.status,
    Steps: (row) => `${row.steps.filter((step) => step.status === "completed").length} of ${row.steps.length} done`,
    Uploaded: (row) => row.uploadedAt,
    "Last change": (row) => row.lastUpdated,
    Error: (row) => row.errorMessage,
  },
};
const ANY = { Value: (row) => JSON.stringify(row).slice(0, 200) };

/** Return the answer, or null with its error on the page. */
async function read(url) {
  try {
    const body = await ask(url, { headers: { Accept: "application/json" } });
    say("");
    return body;
  } catch (error) {
    say(error.message);
    return null;
  }
}

function cell(text, className = "") {
  const made = document.createElement("td");
  made.textContent = text ?? "";
  made.className = className;
  return made;
}

function line(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function rowOf(name, key, row) {
  const columns = COLUMNS[name] ?? ANY;
  const id = cell("", "id");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.addEventListener("click", () => look(name, key));
  id.append(button);
  const cells = Object.entries(columns).map(([title, text]) => cell(text(row), title === "Status" ? `state-${text(row)}` : ""));
  return line(id, ...cells);
}

function partitionOf(each) {
  return line(
    cell(each.partition),
    cell(each.worker ?? "nobody"),
    cell(each.state),
    cell(each.rows ?? "?"),
    cell(each.sizeBytes ?? "?"),
    cell(each.changelogLag ?? "?"),
  );
}

async function look(name, key) {
  $("image-id").value = key;
  const body = await read(`/tables/${encodeURIComponent(name)}/${encodeURIComponent(key)}`);
  $("found").hidden = !body;
  $("found").textContent = body ? JSON.stringify(body.row, null, 2) : "";
}

async function page(name, after) {
  const query = new URLSearchParams({ limit: "50" });
  if (after) query.set("after", after);
  const body = await read(`/tables/${encodeURIComponent(name)}?${query}`);
  if (!body) return;
  $("notice").textContent = body.complete ? "" : body.message;
  $("notice").hidden = body.complete;
  $("worker").textContent = body.worker;
  $("partitions").replaceChildren(...body.partitions.map(partitionOf));
  $("columns").replaceChildren(
    ...["Key", ...Object.keys(COLUMNS[name] ?? ANY)].map((title) => {
      const made = document.createElement("th");
      made.scope = "col";
      made.textContent = title;
      return made;
    }),
  );
  $("rows").replaceChildren(...body.rows.map((row, index) => rowOf(name, body.keys[index], row)));
  $("empty").hidden = body.rows.length > 0;
  $("next").hidden = !body.nextAfter;
  $("next").onclick = () => page(name, body.nextAfter);
}

async function start() {
  const body = await read("/tables");
  if (!body) return;
  const [, , asked, key] = location.pathname.split("/").map(decodeURIComponent);
  const name = asked ?? body.tables[0]?.name;
  $("tables").replaceChildren(
    ...body.tables.map((each) => {
      const link = document.createElement("a");
      link.href = `/tables/${encodeURIComponent(each.name)}`;
      link.textContent = each.name;
      return link;
    }),
  );
  if (!name) return;
  const table = body.tables.find((each) => each.name === name);
  $("table-title").textContent = name;
  $("purpose").textContent = table ? `${table.purpose} (changelog ${table.changelog})` : "";
  $("lookup").onsubmit = (event) => {
    event.preventDefault();
    look(name, $("image-id").value.trim());
  };
  await page(name, null);
  if (key) await look(name, key);
}

wireKey(start);
start();
