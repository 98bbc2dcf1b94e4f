// What is built: a console first, then the provider.

import "./console.js";
export { codec, manifest } from "./provider.js";
