/** The frame around every page: menu, search box, toasts; and the door for those outside. */
import type { NodeStatus } from '../../src/admin/contract.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, page } from '../html.ts'
import type { Site } from '../site.ts'
import { csrf, SWAP } from './forms.ts'
import { glyph, icon } from './marks.ts'
import { clockTime, count, zoneName } from './words.ts'

export type Place =
  | 'overview'
  | 'messages'
  | 'quarantine'
  | 'queue'
  | 'settings'
  | 'operators'
  | 'changes'
  | 'account'

type Sheet = {
  readonly title: string
  readonly at: Place
  readonly main: Html
  /** Shown in the search box. */
  readonly query?: string
  readonly status?: number
  /** Address that is asked every few seconds for what changed, with its query. */
  readonly poll?: string
}

const GATE = html`<path d="M1 5h4V2h4v3h6V2h4v3h4v17h-7v-7a4 4 0 0 0-8 0v7H1z"/>`
const ICONS = html`<svg hidden><symbol id="i-search" viewBox="0 0 16 16"><circle cx="7" cy="7" r="4.5"/><path d="m10.5 10.5 3 3"/></symbol><symbol id="i-copy" viewBox="0 0 16 16"><rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/><path d="M10.5 3.5v-1h-8v8h1"/></symbol><symbol id="i-clip" viewBox="0 0 16 16"><path d="m13 7-5.2 5.2a3 3 0 0 1-4.2-4.2L9 2.6a2 2 0 0 1 2.8 2.8L6.5 10.7"/></symbol><symbol id="i-menu" viewBox="0 0 16 16"><path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11"/></symbol><symbol id="i-theme" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5"/><path d="M8 2.5v11a5.5 5.5 0 0 0 0-11" fill="currentColor"/></symbol></svg>`
const KEYS = html`<dialog id="keys"><h2>Keys</h2><dl class="facts"><dt><kbd>/</kbd></dt><dd>search</dd><dt><kbd>j</kbd> <kbd>k</kbd></dt><dd>next, previous row</dd><dt><kbd>Enter</kbd></dt><dd>open</dd><dt><kbd>x</kbd></dt><dd>select</dd><dt><kbd>?</kbd></dt><dd>this list</dd></dl><form method="dialog"><button class="btn">Close</button></form></dialog>`

/** A page with the menu, for somebody who is signed in. */
export function shell(site: Site, visit: Visit, sheet: Sheet): Response {
  const status = site.admin.status()
  const now = `${clockTime(site.clock.wallMs())} ${zoneName()}`
  const body = html`<body>
<a class="skip btn" href="#main">Skip to content</a>
<div class="app">
<div class="side" id="side" popover>
<a class="brand" href="/"><svg viewBox="0 0 24 24" aria-hidden="true">${GATE}</svg>Postern</a>
${menu(status, sheet.at)}
<ul class="peers" aria-label="Nodes">${status.nodes.map((node) => html`<li>${glyph('alive')}${node.name} <small>${node.id === status.node ? 'you are here' : node.state}</small></li>`)}</ul>
${who(visit)}
</div>
<div>
<header class="top">
<button class="btn quiet icon menu" popovertarget="side" aria-label="Menu">${icon('menu')}</button>
<form class="find${sheet.query === undefined ? '' : ' wide'}" role="search" action="/messages">${icon('search')}<input name="q" id="find" type="search" value="${sheet.query ?? ''}" placeholder="Find a mail: address, subject or id" aria-label="Find a mail by address, subject or id" maxlength="1000" spellcheck="false" autocapitalize="off"><kbd>/</kbd></form>
<div class="live" id="live">${liveWords(status, now)}</div>
</header>
<main id="main" tabindex="-1">
${sheet.main}
${sheet.poll === undefined ? '' : html`<div hidden data-poll hx-get="/live?${sheet.poll}" hx-trigger="every 5s" hx-swap="none" hx-status:4xx="swap:none" hx-status:5xx="swap:none"></div>`}
</main>
</div>
</div>
<div class="toasts" id="toasts" role="status" aria-live="polite">${toasts(site, visit)}</div>
${KEYS}
${ICONS}
</body>`
  return sheetOf(site, visit, `${sheet.title} · ${site.nodeName} · Postern`, body, sheet.status)
}

/** What stands right of the search box: is this node ready, and when was this read. */
export function liveWords(status: NodeStatus, now: string): Html {
  if (status.ready) return html`${glyph('alive')}<span class="t">Ready, ${now}</span>`
  return html`${glyph('dead')}<span class="c dead">Not ready</span>`
}

/** The menu with its counts; also what the poll swaps in. */
export function menu(status: NodeStatus, at: Place): Html {
  const link = (place: Place, path: string, words: string, number: number | null = null) =>
    html`<a href="${path}"${place === at ? html` aria-current="page"` : ''}>${words}${number === null ? '' : html`<span>${count(number)}</span>`}</a>`
  return html`<nav class="nav" id="nav" aria-label="Main">
${link('overview', '/', 'Overview')}
${link('messages', '/messages', 'Messages')}
${link('quarantine', '/quarantine', 'Quarantine', status.held)}
${link('queue', '/queue', 'Queue', status.queue.messages)}
<h2>Policy</h2>${link('settings', '/settings', 'Domains and limits')}
<h2>System</h2>${link('operators', '/operators', 'Operators')}
${link('changes', '/changes', 'Changes')}
</nav>`
}

function who(visit: Visit): Html {
  const { author } = visit
  const name = html`<a href="/account">${author?.name ?? ''}</a> <small>${author?.role ?? ''}</small>`
  const out = html`<form method="post" action="/logout">${csrf(visit)}<button class="btn quiet small">Sign out</button></form>`
  return html`<div class="who"><span>${visit.session === null ? 'This machine' : name}</span>${themeForm(visit, 'push')}${visit.session === null ? '' : out}</div>`
}

function themeForm(visit: Visit, place: string): Html {
  const next = visit.theme === 'dark' ? 'light' : 'dark'
  return html`<form class="${place}" method="post" action="/theme"><button class="btn quiet icon" name="theme" value="${next}" data-theme-toggle aria-label="Switch between light and dark">${icon('theme')}</button></form>`
}

function toasts(site: Site, visit: Visit): readonly Html[] {
  return site.flashes.take(visit.session).map(({ words, kind, undo }) => {
    const back =
      undo === null
        ? ''
        : html`<form method="post" action="/changes/${undo}/undo" hx-post="/changes/${undo}/undo" ${SWAP}>${csrf(visit)}<button class="btn small">Undo</button></form>`
    const alert = kind === 'failed' ? html` role="alert"` : ''
    return html`<div class="toast"${alert}>${glyph(kind === 'done' ? 'pass' : 'fail')}<span>${words}</span>${back}</div>`
  })
}

/** A page before the gate: sign-in and set-up. */
export function door(
  site: Site,
  visit: Visit,
  sheet: {
    readonly title: string
    readonly main: Html
    readonly wide?: boolean
    readonly status?: number
  },
): Response {
  const body = html`<body>
<main class="door${sheet.wide === true ? ' wide' : ''}" id="main">
<a class="brand" href="/"><svg viewBox="0 0 24 24" aria-hidden="true">${GATE}</svg>Postern</a>
${sheet.main}
${themeForm(visit, '')}
</main>
${WALL}
${ICONS}
</body>`
  return sheetOf(site, visit, `${sheet.title} · ${site.nodeName} · Postern`, body, sheet.status)
}

const MERLONS = 'h26v14h22v-14'.repeat(50)
const WALL = html`<svg class="wall" viewBox="0 0 2400 96" preserveAspectRatio="xMidYMax slice" aria-hidden="true"><path d="M0 24${MERLONS}V96H0z"/><path d="M1188 96V76a12 12 0 0 1 24 0v20z"/></svg>`

function sheetOf(site: Site, visit: Visit, title: string, body: Html, status = 200): Response {
  const theme = visit.theme === null ? '' : html` data-theme="${visit.theme}"`
  const { assets } = site
  return page(
    html`<!doctype html>
<html lang="en"${theme}>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<meta name="htmx-config" content='{"includeIndicatorCSS":false,"mode":"same-origin"}'>
<link rel="icon" href="${assets.path('mark.svg')}" type="image/svg+xml">
<link rel="stylesheet" href="${assets.path('app.css')}">
<script src="${assets.path('htmx.js')}" defer></script>
<script src="${assets.path('app.js')}" defer></script>
</head>
${body}
</html>
`,
    status,
  )
}
