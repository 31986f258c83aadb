/** The frame around every page: menu, search box, toasts; and the door for those outside. */
import type { ClusterView } from '../../src/admin/contract.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, page } from '../html.ts'
import type { Site } from '../site.ts'
import { act, csrf } from './forms.ts'
import { glyph, icon } from './marks.ts'
import { banner, livingWords, members, peers, queuedOnAll } from './nodes.ts'
import { clockTime, count, counted, zoneName } from './words.ts'

export type Place =
  | 'overview'
  | 'messages'
  | 'quarantine'
  | 'queue'
  | 'settings'
  | 'conflicts'
  | 'lists'
  | 'rules'
  | 'operators'
  | 'cluster'
  | 'alerts'
  | 'changes'
  | 'account'

type Sheet = {
  readonly title: string
  readonly at: Place
  readonly main: Html
  /** Shown in the search box. */
  readonly query?: string
  readonly status?: number
  /** More of the query with which this page asks every few seconds what changed. */
  readonly poll?: Readonly<Record<string, string>>
  /** Address of an event stream that this page follows instead of asking. */
  readonly stream?: string
}

const GATE = html`<path d="M1 5h4V2h4v3h6V2h4v3h4v17h-7v-7a4 4 0 0 0-8 0v7H1z"/>`
const ICONS = html`<svg hidden><symbol id="i-search" viewBox="0 0 16 16"><circle cx="7" cy="7" r="4.5"/><path d="m10.5 10.5 3 3"/></symbol><symbol id="i-copy" viewBox="0 0 16 16"><rect x="5.5" y="5.5" width="8" height="8" rx="1.5"/><path d="M10.5 3.5v-1h-8v8h1"/></symbol><symbol id="i-clip" viewBox="0 0 16 16"><path d="m13 7-5.2 5.2a3 3 0 0 1-4.2-4.2L9 2.6a2 2 0 0 1 2.8 2.8L6.5 10.7"/></symbol><symbol id="i-menu" viewBox="0 0 16 16"><path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11"/></symbol><symbol id="i-pause" viewBox="0 0 16 16"><path d="M5.5 3.5v9M10.5 3.5v9"/></symbol><symbol id="i-theme" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5"/><path d="M8 2.5v11a5.5 5.5 0 0 0 0-11" fill="currentColor"/></symbol></svg>`
const KEYS = html`<dialog id="keys"><h2>Keys</h2><dl class="facts"><dt><kbd>/</kbd></dt><dd>search</dd><dt><kbd>j</kbd> <kbd>k</kbd></dt><dd>next, previous row</dd><dt><kbd>Enter</kbd></dt><dd>open</dd><dt><kbd>x</kbd></dt><dd>select</dd><dt><kbd>?</kbd></dt><dd>this list</dd></dl><form method="dialog"><button class="btn">Close</button></form></dialog>`

/** A page with the menu, for somebody who is signed in. */
export function shell(site: Site, visit: Visit, sheet: Sheet): Response {
  const view = site.admin.cluster()
  const body = html`<body>
<a class="skip btn" href="#main">Skip to content</a>
<div class="app">
<div class="side" id="side" popover>
<a class="brand" href="/"><svg viewBox="0 0 24 24" aria-hidden="true">${GATE}</svg>Postern</a>
${menu(site, view, sheet.at)}
${peers(view, site.clock.wallMs())}
${who(visit)}
</div>
<div>
<header class="top">
<button class="btn quiet icon menu" popovertarget="side" aria-label="Menu">${icon('menu')}</button>
<form class="find${sheet.query === undefined ? '' : ' wide'}" role="search" action="/messages">${icon('search')}<input name="q" id="find" type="search" value="${sheet.query ?? ''}" placeholder="Find a mail: address, subject or id" aria-label="Find a mail by address, subject or id" maxlength="1000" spellcheck="false" autocapitalize="off"><kbd>/</kbd></form>
<div class="live">${bell(site)}<span id="live">${liveWords(site)}</span><button class="btn quiet icon" type="button" data-pause hidden aria-pressed="false" aria-label="Pause live updates">${icon('pause')}</button></div>
</header>
<main id="main" tabindex="-1">
<div class="stack" id="banner">${banner(site, view)}</div>
${sheet.main}
${follow(sheet)}
</main>
</div>
</div>
<div class="toasts" id="toasts" role="status" aria-live="polite">${toasts(site, visit)}</div>
${KEYS}
${ICONS}
</body>`
  return sheetOf(site, visit, `${sheet.title} · ${site.nodeName} · Postern`, body, sheet.status)
}

/** How the page learns what changed: a stream, or a question every few seconds. */
function follow({ at, poll, stream }: Sheet): Html {
  if (stream !== undefined)
    return html`<div hidden data-stream hx-sse:connect="${stream}" hx-swap="none"></div>`
  const query = new URLSearchParams({ at, ...poll })
  return html`<div hidden data-poll hx-get="/live?${query.toString()}" hx-trigger="every 5s" hx-swap="none" hx-status:4xx="swap:none" hx-status:5xx="swap:none"></div>`
}

/** What changes on every page, as parts for htmx; each finds its place by itself. */
export function liveParts(site: Site, view: ClusterView, at: Place): Html {
  return html`<hx-partial hx-target="#nav" hx-swap="outerMorph">${menu(site, view, at)}</hx-partial>
<hx-partial hx-target="#peers" hx-swap="outerMorph">${peers(view, site.clock.wallMs())}</hx-partial>
<hx-partial hx-target="#live" hx-swap="innerHTML">${liveWords(site)}</hx-partial>
<hx-partial hx-target="#bell" hx-swap="outerMorph">${bell(site)}</hx-partial>
<hx-partial hx-target="#banner" hx-swap="innerMorph">${banner(site, view)}</hx-partial>`
}

/** What stands right of the search box: is this node ready, and when was this read. */
function liveWords({ admin, clock }: Site): Html {
  if (!admin.status().ready) return html`${glyph('dead')}<span class="c dead">Not ready</span>`
  return html`${glyph('alive')}<span class="t">Ready, ${clockTime(clock.wallMs())} ${zoneName()}</span>`
}

/** How much is wrong, beside the search box of every page; empty when all is well. */
function bell({ admin }: Site): Html {
  const alerts = admin.alerts()
  if (alerts.length === 0) return html`<a id="bell" href="/alerts" hidden></a>`
  const mark = alerts.some(({ level }) => level === 'bad') ? 'dead' : 'warn'
  return html`<a id="bell" class="badge ${mark}" href="/alerts">${glyph(mark)}${counted(alerts.length, 'alert')}</a>`
}

/** The menu with its counts. */
function menu({ admin }: Site, view: ClusterView, at: Place): Html {
  const status = admin.status()
  const conflicts = admin.conflicts().length
  const alerts = admin.alerts().length
  const link = (place: Place, path: string, words: string, number: number | string | null = null) =>
    html`<a href="${path}"${place === at ? html` aria-current="page"` : ''}>${words}${number === null ? '' : html`<span>${typeof number === 'number' ? count(number) : number}</span>`}</a>`
  return html`<nav class="nav" id="nav" aria-label="Main">
${link('overview', '/', 'Overview')}
${link('messages', '/messages', 'Messages')}
${link('quarantine', '/quarantine', 'Quarantine', status.held)}
${link('queue', '/queue', 'Queue', queuedOnAll(view, status.queue.messages))}
<h2>Policy</h2>${link('settings', '/settings', 'Domains and limits')}
${link('rules', '/rules', 'Rules')}
${link('lists', '/lists', 'Allow and block lists')}
${link('operators', '/operators', 'Operators')}
${conflicts === 0 ? '' : link('conflicts', '/conflicts', 'Conflicts', conflicts)}
<h2>System</h2>${link('cluster', '/cluster', 'Cluster', members(view).length < 2 ? null : livingWords(view))}
${link('alerts', '/alerts', 'Alerts', alerts === 0 ? null : alerts)}
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
        : act(visit, `/changes/${encodeURIComponent(undo)}/undo`, { words: 'Undo', small: true })
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
<meta name="htmx-config" content='{"includeIndicatorCSS":false,"mode":"same-origin","extensions":"sse"}'>
<link rel="icon" href="${assets.path('mark.svg')}" type="image/svg+xml">
<link rel="stylesheet" href="${assets.path('app.css')}">
<script src="${assets.path('htmx.js')}" defer></script>
<script src="${assets.path('sse.js')}" defer></script>
<script src="${assets.path('app.js')}" defer></script>
</head>
${body}
</html>
`,
    status,
  )
}
