/** What every form of the pages shares: the token, and how htmx saves the reload. */
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'

/**
 * After an act the browser is sent to the page that shows what became of it. htmx follows and
 * takes that page's content, menu and toasts; a failure of ours leaves the page as it is.
 */
export const SWAP = html`hx-target="#main" hx-select="#main" hx-swap="outerHTML" hx-select-oob="#toasts:innerHTML,#nav,#peers" hx-status:5xx="swap:none"`

/** As SWAP, and what was typed stays. */
export const MORPH = html`hx-target="#main" hx-select="#main" hx-swap="outerMorph" hx-select-oob="#toasts:innerHTML,#nav,#peers" hx-status:5xx="swap:none"`

export function csrf(visit: Visit): Html {
  return visit.csrf === '' ? html`` : html`<input type="hidden" name="_csrf" value="${visit.csrf}">`
}

/** A form that is one button. */
export function act(
  visit: Visit,
  path: string,
  button: {
    readonly words: string
    readonly kind?: '' | 'primary' | 'danger' | 'quiet'
    readonly small?: boolean
    readonly fields?: Readonly<Record<string, string>>
  },
): Html {
  const { words, kind = '', small = false, fields = {} } = button
  const hidden = Object.entries(fields).map(
    ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
  )
  return html`<form method="post" action="${path}" hx-post="${path}" ${SWAP}>${csrf(visit)}${hidden}<button class="btn ${kind}${small ? ' small' : ''}">${words}</button></form>`
}

/** May this visitor change anything? Buttons that would be refused are not drawn. */
export function mayAct(visit: Visit): boolean {
  return visit.author?.role === 'admin'
}

/**
 * May this visitor change what all nodes share? Not while the clock of this node is wrong: what
 * it stamped now would win over what others decide later. The banner says so.
 */
export function mayChange({ admin }: Pick<Site, 'admin'>, visit: Visit): boolean {
  return mayAct(visit) && !admin.alarms().some(({ kind }) => kind === 'clock')
}

/** A path with a query; empty values are left out. */
export function link(
  path: string,
  query: Readonly<Record<string, string | number | null | undefined>>,
): string {
  const pairs = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== '',
  )
  if (pairs.length === 0) return path
  return `${path}?${new URLSearchParams(pairs.map(([key, value]): [string, string] => [key, String(value)]))}`
}
