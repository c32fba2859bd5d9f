// Every operation of /openapi.json with a form that sends it, from this page to this server.
// What is typed stays on the page; the key is forgotten with it.

const $ = (id) => document.getElementById(id);
const JSON_TYPE = "application/json";

function made(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function field(name, schema, required, hint) {
  const label = made("label", `${name}${required ? " *" : ""} `);
  let input;
  if (schema.enum) {
    input = made("select");
    input.append(made("option", "", { value: "" }), ...schema.enum.map((each) => made("option", each)));
  } else {
    input = made("input");
    input.type = schema.format === "binary" ? "file" : "text";
    if (schema.default !== undefined) input.placeholder = String(schema.default);
  }
  input.name = name;
  input.required = required;
  label.append(input);
  if (hint) label.append(made("span", ` ${hint}`, { class: "quiet" }));
  return label;
}

function addressOf(path, operation, values) {
  const query = new URLSearchParams();
  const headers = {};
  for (const parameter of operation.parameters ?? []) {
    const value = values.get(parameter.name);
    if (!value) continue;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "header") headers[parameter.name] = value;
    else query.set(parameter.name, value);
  }
  return [query.size ? `${path}?${query}` : path, headers];
}

function bodyOf(kind, form, values, headers) {
  if (kind === "multipart/form-data") {
    const body = new FormData();
    for (const [name, value] of new FormData(form)) {
      if (form.dataset.parts.split(" ").includes(name) && (value.size ?? value.length)) body.append(name, value);
    }
    for (const line of (values.get("more fields") ?? "").split("\n")) {
      const cut = line.indexOf("=");
      if (cut > 0) body.append(line.slice(0, cut).trim(), line.slice(cut + 1).trim());
    }
    return body;
  }
  const text = values.get("body");
  if (!text) return undefined;
  headers["Content-Type"] = kind;
  return text;
}

async function show(answer, place) {
  const lines = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  const head = made("pre", `${answer.status} ${answer.statusText}\n${lines}`);
  const kind = answer.headers.get("Content-Type") ?? "";
  if (kind.startsWith("image/")) {
    const image = made("img", "", { alt: "The picture that was answered", width: "320" });
    image.src = URL.createObjectURL(await answer.blob());
    image.onload = () => URL.revokeObjectURL(image.src);
    place.replaceChildren(head, image);
    return;
  }
  let text = await answer.text();
  if (kind.startsWith(JSON_TYPE)) text = JSON.stringify(JSON.parse(text), null, 2);
  place.replaceChildren(head, made("pre", text, { tabindex: "0" }));
}

async function send(form, method, path, operation, kind, place) {
  const values = new FormData(form);
  const [url, headers] = addressOf(path, operation, values);
  if ($("key").value) headers["X-API-Key"] = $("key").value;
  const body = kind ? bodyOf(kind, form, values, headers) : undefined;
  place.replaceChildren(made("p", "…"));
  try {
    await show(await fetch(url, { method: method.toUpperCase(), headers, body }), place);
  } catch (error) {
    place.replaceChildren(made("p", `There was no answer (${error.message}).`, { class: "bad" }));
  }
}

function formOf(method, path, operation) {
  const form = made("form");
  const [kind, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  for (const parameter of operation.parameters ?? []) {
    form.append(field(parameter.name, parameter.schema, parameter.required, parameter.description));
  }
  if (kind === "multipart/form-data") {
    const { properties, required = [] } = content.schema;
    form.dataset.parts = Object.keys(properties).join(" ");
    for (const [name, schema] of Object.entries(properties)) {
      form.append(field(name, schema, required.includes(name), schema.description));
    }
    if (content.schema.patternProperties) {
      const more = made("label", "more fields, one name=value a line ");
      more.append(made("textarea", "", { name: "more fields", rows: "2", cols: "60" }));
      form.append(more);
    }
  } else if (kind) {
    const example = Object.keys(content.schema.properties ?? {}).join(", ");
    const label = made("label", `JSON body (${example}) `);
    label.append(made("textarea", "", { name: "body", rows: "4", cols: "60", spellcheck: "false" }));
    form.append(label);
  }
  const place = made("div", "", { role: "status" });
  form.append(made("button", "Send"), place);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, method, path, operation, kind, place);
  });
  return form;
}

function operationOf(method, path, operation) {
  const details = made("details", "", { class: "operation", id: operation.operationId });
  const head = made("summary");
  const scope = operation.security?.[0]?.apiKey?.[0];
  head.append(made("strong", method.toUpperCase()), made("code", ` ${path} `), operation.summary);
  if (scope) head.append(made("span", ` · needs ${scope}`, { class: "quiet" }));
  const answers = made("ul", "", { class: "quiet" });
  for (const [status, answer] of Object.entries(operation.responses)) {
    answers.append(made("li", `${status}: ${answer.description}`));
  }
  details.append(head);
  if (operation.description) details.append(made("p", operation.description));
  details.append(formOf(method, path, operation), answers);
  return details;
}

async function start() {
  const documented = await (await fetch("/openapi.json")).json();
  const sections = new Map(documented.tags.map(({ name }) => [name, made("section")]));
  for (const [name, section] of sections) section.append(made("h2", name));
  for (const [path, methods] of Object.entries(documented.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (operation.responses["101"]) continue; // a websocket is followed on the page of the pictures
      sections.get(operation.tags[0]).append(operationOf(method, path, operation));
    }
  }
  $("operations").replaceChildren(...[...sections.values()].filter((each) => each.childElementCount > 1));
  if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}

start().catch(() => {
  $("error").textContent = "The server does not answer; is it running?";
  $("error").hidden = false;
});
