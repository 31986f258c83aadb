/** Programs in WebAssembly come as files of the binary. */
declare module '*.wasm' {
  const path: string
  export default path
}
