/* What viewers say: a list of messages with a field to write, and reactions that float up over the pictures. All of it is shown as text. */

import { byId, make } from "./elements.js";

const MOST_MESSAGES = 200;
const MOST_FLOATING = 40;
const LONGEST_TEXT = 500;
const REACTIONS = { like: "👍", love: "❤️", laugh: "😂", applause: "👏", party: "🎉" };
const OTHER = "✨";

export class Chat {
  #events;
  #section;
  #messages;
  #reactions;
  #form;
  #field;
  #hint;
  #floating;
  #me = "";

  constructor(events) {
    this.#events = events;
    [this.#section, this.#messages, this.#reactions, this.#form, this.#field, this.#hint, this.#floating] = byId(
      "chat", "messages", "reactions", "say", "text", "chat-hint", "floating",
    );
    this.#field.maxLength = LONGEST_TEXT;
    this.#reactions.append(...Object.keys(REACTIONS).map((type) => this.#button(type)));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    events.addEventListener("allowed", ({ detail }) => this.#allow(detail));
    events.addEventListener("barred", ({ detail }) => this.#bar(detail));
    events.addEventListener("told", ({ detail }) => this.#show(detail));
  }

  #allow({ user, capabilities }) {
    this.#me = user.id;
    this.#form.hidden = !capabilities.has("send-event");
    this.#reactions.hidden = !capabilities.has("create-reaction");
    this.#section.hidden = this.#form.hidden && this.#reactions.hidden && this.#messages.childElementCount === 0;
    this.#tell("");
  }

  #bar(why) {
    this.#form.hidden = this.#reactions.hidden = true;
    this.#tell(why);
  }

  #button(type) {
    const button = make("button", "", REACTIONS[type]);
    button.type = "button";
    button.setAttribute("aria-label", `React: ${type}`);
    button.addEventListener("click", () => this.#ask({ type: "reaction", reaction: { type } }));
    return button;
  }

  async #send() {
    const text = this.#field.value.trim();
    if (text && (await this.#ask({ type: "custom", custom: { text } }))) this.#field.value = "";
  }

  async #ask(message) {
    try {
      await this.#events.ask(message);
      this.#tell("");
      return true;
    } catch (error) {
      this.#tell(error.message);
      return false;
    }
  }

  #show({ type, payload, created_at }) {
    const { user, custom, reaction } = payload;
    if (type === "custom" && typeof custom?.text === "string") this.#add(user, custom.text, created_at);
    if (type === "call.reaction_new") this.#float(REACTIONS[reaction.type] ?? OTHER);
  }

  #add(user, text, at) {
    const list = this.#messages;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40; // who reads further up is left there
    const item = make("li", user.id && user.id === this.#me ? "own" : "");
    const time = make("time", "", new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = at;
    item.append(make("b", "", (user.name || user.id || "Guest").slice(0, 64)), " ", time, make("p", "", text.slice(0, LONGEST_TEXT)));
    list.append(item);
    while (list.childElementCount > MOST_MESSAGES) list.firstElementChild.remove();
    this.#section.hidden = false;
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  #float(emoji) {
    if (this.#floating.childElementCount >= MOST_FLOATING) return;
    const element = make("span", "", emoji);
    element.style.setProperty("--at", `${Math.round(5 + Math.random() * 85)}%`);
    element.addEventListener("animationend", () => element.remove());
    this.#floating.append(element);
  }

  #tell(text) {
    this.#hint.textContent = text;
    this.#hint.hidden = !text;
  }
}
