/** The relaxed form of header fields that signatures go over (RFC 6376 section 3.4.2). */

/** Of a value: folds removed, blanks in a row are one, none around it. */
export function relaxedValue(value: string): string {
  return value
    .replace(/\r\n/g, '')
    .replace(/[ \t]+/g, ' ')
    .replace(/^ | $/g, '')
}

/** Of a whole field, with or without its line end; gives none. */
export function relaxedField(field: string): string {
  const colon = field.indexOf(':')
  return `${field.slice(0, colon).trim().toLowerCase()}:${relaxedValue(field.slice(colon + 1))}`
}
