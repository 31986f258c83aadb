/** html`` template: every hole is escaped; only another Html passes as it is. */

/** Markup that is safe to send. Made only by html``. */
export class Html {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export type Hole = string | number | Html | readonly Html[] | null | undefined | false

/** Attribute values must stand in double quotes; a hole is never a tag or attribute name. */
export function html(strings: TemplateStringsArray, ...holes: readonly Hole[]): Html {
  return new Html(strings.map((string, i) => string + show(holes[i])).join(''))
}

function show(hole: Hole): string {
  if (hole === null || hole === undefined || hole === false) return ''
  if (hole instanceof Html) return hole.text
  if (typeof hole === 'object') return hole.map((part) => part.text).join('')
  return Bun.escapeHTML(String(hole))
}

/** An HTML answer. */
export function page(content: Html, status = 200): Response {
  return new Response(content.text, {
    status,
    headers: { 'content-type': 'text/html; charset=utf-8' },
  })
}

/** See other: after an act, the browser gets the page that shows what became of it. */
export function seeOther(path: string): Response {
  return new Response(null, { status: 303, headers: { location: path } })
}

/**
 * A path of this site as a form or a query gave it, or `otherwise`: never another host, never
 * a scheme (`//evil`, `/\evil`, `javascript:`).
 */
export function safePath(text: string | undefined, otherwise: string): string {
  if (text === undefined || !/^\/(?![/\\])/.test(text) || text.length > 2_000) return otherwise
  const base = 'http://postern.invalid'
  const url = URL.parse(text, base)
  return url === null || url.origin !== base ? otherwise : url.pathname + url.search
}
