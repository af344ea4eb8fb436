// A task of the page: an agent, and test images, as demo/build.py wrote them.

import { Agent, makeImage } from "./agent.js";

export class Task {
  static tasks = new Map();

  static async load(name) {
    if (!Task.tasks.has(name)) Task.tasks.set(name, await new Task().read(name));
    return Task.tasks.get(name);
  }

  async read(name) {
    const fetched = async (end) => {
      const answer = await fetch(`models/${name}${end}`);
      if (!answer.ok) throw new Error(`${answer.url}: ${answer.status} ${answer.statusText}`);
      return answer;
    };
    Object.assign(this, await (await fetched(".json")).json());
    const packed = (await fetched(".images.bin")).body;
    const stream = packed.pipeThrough(new DecompressionStream("gzip"));
    this.bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const model = await (await fetched(".onnx")).arrayBuffer();
    this.agent = await Agent.load(new Uint8Array(model), this.about);
    return this;
  }

  get count() {
    return this.labels.length;
  }

  /** Image `index`; the examples of the classes follow the test images. */
  image(index) {
    const [height, width, channels] = this.image_shape;
    const size = height * width * channels;
    const images = this.count + this.examples;
    const first = this.about.first_size ?? 0;
    const small = first * first * channels;
    const part = (start, length) => this.bytes.slice(start, start + length);
    const thumbnail = small ? part(images * size + index * small, small) : null;
    return makeImage(part(index * size, size), this.image_shape, thumbnail);
  }
}
