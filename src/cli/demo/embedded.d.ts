/** Files that the demo embeds as text. */
declare module '*.eml' {
  const text: string
  export default text
}
