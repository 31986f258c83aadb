/** libyara-wasm comes without types; yara-rules.ts names what it uses of it. */
declare module 'libyara-wasm' {
  const factory: unknown
  export default factory
}
