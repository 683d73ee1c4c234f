// Leads one reader through the images, keeps each answer at once in this browser, and writes them as a file at the end.
const study = JSON.parse(document.getElementById("study").textContent);
const byId = name => document.getElementById(name);
const QUESTIONS = ["origin", "confidence", "diagnosis"];
const viewer = new Viewer(byId("image"), study.window, study.unit);
let reader = "", order = [], answers = {}, at = 0;

// ---- what is kept: localStorage[radaug-study:STUDY:READER] = the reader's answers by image number

const place = name => `radaug-study:${study.study}:${name}`;
let keeps = true;
try {
  localStorage.setItem(place(""), "");
  localStorage.removeItem(place(""));
} catch {
  keeps = false;
  byId("keeps-nothing").hidden = false;
}

function keep() {
  if (keeps) localStorage.setItem(place(reader), JSON.stringify(answers));
}

function kept(name) {
  return (keeps && JSON.parse(localStorage.getItem(place(name)))) || {};
}

// ---- each reader has an order of images, the same one after every pause

function shuffled(name) {
  let state = 2166136261;
  for (const sign of `${study.study}/${name}`) state = Math.imul(state ^ sign.codePointAt(0), 16777619);
  const random = () => {  // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const numbers = study.images.map((_, index) => index + 1);
  for (let last = numbers.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [numbers[last], numbers[other]] = [numbers[other], numbers[last]];
  }
  return numbers;
}

// ---- the screens

function screen(name) {
  for (const one of ["start", "reading", "end"]) byId(one).hidden = one !== name;
  window.scrollTo(0, 0);
}

function listReaders() {
  const names = keeps ? Object.keys(localStorage).filter(key => key.startsWith(place(""))) : [];
  const begun = names.map(key => key.slice(place("").length));
  byId("begun").hidden = !begun.length;
  byId("begun-list").replaceChildren(...begun.map(name => {
    const button = document.createElement("button"), item = document.createElement("li");
    button.textContent = `Go on as ${name}: ${complete(kept(name))} of ${study.images.length} done`;
    button.addEventListener("click", () => begin(name));
    item.append(button);
    return item;
  }));
}

const isComplete = answer => Boolean(answer) && QUESTIONS.every(question => question in answer);
const complete = all => Object.values(all).filter(isComplete).length;

function begin(name) {
  reader = name;
  order = shuffled(name);
  answers = kept(name);
  keep();
  const open = order.findIndex(number => !isComplete(answers[number]));
  if (open < 0) return finish();
  at = open;
  screen("reading");
  return show();
}

async function show() {
  const answer = answers[order[at]] || {};
  for (const input of document.querySelectorAll("#questions input")) {
    input.checked = input.name in answer && String(answer[input.name]) === input.value;
  }
  const done = complete(answers);
  byId("progress").textContent = `Image ${at + 1} of ${order.length}`;
  byId("done").textContent = `${done} done`;
  byId("bar").value = done;
  byId("image").setAttribute("aria-label", `Image ${at + 1} of ${order.length}`);
  byId("back").disabled = at === 0;
  byId("next").disabled = !isComplete(answer);
  document.activeElement?.blur();
  delete byId("image").dataset.shown;
  await viewer.show(study.images[order[at] - 1]);
  byId("image").dataset.shown = at + 1;
}

function answer(question, value) {
  const number = order[at];
  answers[number] = { ...answers[number], [question]: question === "confidence" ? Number(value) : value };
  keep();
  const input = [...document.getElementsByName(question)].find(one => one.value === String(value));
  input.checked = true;
  byId("next").disabled = !isComplete(answers[number]);
  byId("done").textContent = `${complete(answers)} done`;
  byId("bar").value = complete(answers);
}

function next() {
  if (!isComplete(answers[order[at]])) return undefined;
  if (complete(answers) === order.length && at === order.length - 1) return finish();
  at = Math.min(at + 1, order.length - 1);
  return show();
}

function back() {
  if (at === 0) return undefined;
  at -= 1;
  return show();
}

function finish() {
  screen("end");
  byId("finished").textContent = `All ${order.length} images are answered, ${reader}. Thank you.`;
}

function exported() {
  const given = Object.entries(answers).map(([number, said]) => ({ number: Number(number), ...said }));
  return { format: "radaug-answers-1", study: study.study, reader, order, answers: given };
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 1)], { type: "application/json" }));
  link.download = `answers-${study.study}-${reader.replace(/[^A-Za-z0-9_-]+/g, "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- keys and buttons

const keys = new Map([...document.querySelectorAll("#questions input[data-key]")].map(input => [input.dataset.key, input]));
const moves = {
  "+": () => viewer.move("zoom", 0.25), "-": () => viewer.move("zoom", -0.25), "0": () => viewer.reset(),
  "[": () => viewer.move("width", -(study.window[1] - study.window[0]) / 32),
  "]": () => viewer.move("width", (study.window[1] - study.window[0]) / 32),
  ",": () => viewer.move("centre", -(study.window[1] - study.window[0]) / 32),
  ".": () => viewer.move("centre", (study.window[1] - study.window[0]) / 32),
  "Backspace": back,
};
if (viewer.slider.slice) {
  moves.ArrowUp = () => viewer.move("slice", 1);
  moves.ArrowDown = () => viewer.move("slice", -1);
}

document.addEventListener("keydown", event => {
  if (byId("reading").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    next();
    return;
  }
  if (event.key.startsWith("Arrow") && event.target.tagName === "INPUT") return;
  const input = keys.get(event.key.toUpperCase());
  if (input) answer(input.name, input.value);
  else if (moves[event.key]) moves[event.key]();
  else return;
  event.preventDefault();
});
for (const input of document.querySelectorAll("#questions input")) {
  input.addEventListener("change", () => answer(input.name, input.value));
}
byId("next").addEventListener("click", next);
byId("back").addEventListener("click", back);
byId("reset").addEventListener("click", () => viewer.reset());
byId("save").addEventListener("click", save);
byId("review").addEventListener("click", () => { at = 0; screen("reading"); show(); });
byId("who").addEventListener("submit", event => {
  event.preventDefault();
  const name = byId("reader").value.trim();
  if (name) begin(name);
});
listReaders();
