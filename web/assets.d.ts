/** Files of web/assets and htmx are embedded as text. */
declare module '*.css' {
  const text: string

  export { text as default }
}

declare module '*.svg' {
  const text: string

  export { text as default }
}

declare module '*.sh' {
  const text: string

  export { text as default }
}

declare module '*.js' {
  const text: string

  export { text as default }
}
