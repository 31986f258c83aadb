/** SQL files are embedded as text. */
declare module '*.sql' {
  const text: string

  export { text as default }
}
