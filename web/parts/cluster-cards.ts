/** The cards of the cluster page that change by themselves: nodes, links, what happened, tokens. */
import type { ClusterView, TokenView } from '../../src/admin/contract.ts'
import { some } from '../../src/base/prose.ts'
import type { Visit } from '../guard.ts'
import { type Html, html } from '../html.ts'
import { act, mayAct } from './forms.ts'
import { badge, glyph, type Mark } from './marks.ts'
import {
  hereIn,
  isLiving,
  members,
  type NodeView,
  nameOf,
  sinceWords,
  stateBadge,
} from './nodes.ts'
import { clockTime, count, counted, longTime, size, span, time, zoneName } from './words.ts'

type Link = ClusterView['links'][number]
type Event = ClusterView['events'][number]

/** A clock this far away is worth a look; at 60 s settings become read-only. */
const OFFSET_MS = 5_000

export function nodesCard(view: ClusterView, visit: Visit, nowMs: number): Html {
  const all = members(view)
  const about = { here: hereIn(view), alone: all.length < 2 }
  const rows = all.map((node) => nodeRow(node, about, visit, nowMs))
  const gone = view.nodes.filter(({ state }) => state === 'left' || state === 'evicted')
  const names = (state: string) =>
    gone.filter((node) => node.state === state).map(({ name }) => name)
  const [left, removed] = [names('left'), names('evicted')]
  const words = [
    ...(left.length === 0 ? [] : [`Left: ${some(left, 5)}.`]),
    ...(removed.length === 0 ? [] : [`Removed: ${some(removed, 5)}.`]),
  ]
  return html`<section class="card" id="nodes" aria-labelledby="nodes-h"><header><h2 id="nodes-h">Nodes</h2><small>${stepWords(view)}</small></header>
<div class="scroll"><table class="nodes"><thead><tr><th scope="col">Node</th><th scope="col">State</th><th scope="col">In step</th><th class="num" scope="col">Queue</th><th class="num" scope="col">Held</th><th class="num" scope="col">Keeps copies</th><th class="num" scope="col">One copy</th><th class="num" scope="col">Disk free</th><th class="num" scope="col">Clock</th><th scope="col">Version</th>${mayAct(visit) ? html`<th scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead><tbody>${rows}</tbody></table></div>${words.length === 0 ? '' : html`<div class="body first"><small>${words.join(' ')}</small></div>`}</section>`
}

/** Who has all that this node knows. */
function stepWords(view: ClusterView): string {
  const others = members(view).filter(({ here }) => !here)
  if (others.length === 0) return 'This node is alone'
  const living = others.filter(isLiving)
  if (living.length === 0) return 'No other node answers'
  const behind = living.filter(({ lagRows }) => lagRows > 0).map(({ name }) => name)
  if (behind.length === 0) {
    return `${living.length === others.length ? 'All' : 'All that answer'} have every change`
  }
  return `${some(behind, 3)} ${behind.length === 1 ? 'has' : 'have'} not every change yet`
}

function nodeRow(
  node: NodeView,
  about: { readonly here: NodeView | null; readonly alone: boolean },
  visit: Visit,
  nowMs: number,
): Html {
  const { here, alone } = about
  const { id, name, report, version, state } = node
  const since =
    state === 'alive' ? '' : html`<br><small>${sinceWords(node.sinceMs, nowMs).trim()}</small>`
  const where = [some(node.peer, 1), ...(node.here ? ['you are here'] : [])].filter(
    (words) => words !== '',
  )
  // What a silent node last said of itself is no news.
  const old = isLiving(node) ? '' : ' muted'
  const number = (label: string, value: number | undefined) =>
    html`<td class="num${old}" data-label="${label}">${value === undefined ? '–' : count(value)}</td>`
  const other = here !== null && version !== here.version
  return html`<tr id="n-${id}"><td class="name"><b>${name}</b><br><small>${where.join(', ')}</small></td><td class="state">${stateBadge(node)}${since}</td>${step(node)}${number('Queue', report?.queue)}${number('Held', report?.held)}${copies(node, alone, old)}${single(node, alone, old)}${disk(node, old)}${offset(node)}<td data-label="Version">${version}${other ? html`<br><small>not as here</small>` : ''}</td>${mayAct(visit) ? html`<td class="num last"><div class="acts right">${buttons(node, alone, visit)}</div></td>` : ''}</tr>`
}

function step({ here, lagRows, lagMs, ...node }: NodeView): Html {
  if (here) return html`<td class="muted" data-label="In step">–</td>`
  const rows = counted(lagRows, 'row')
  if (node.state === 'dead' || node.state === 'suspect') {
    return html`<td class="muted" data-label="In step">–<br><small>${lagRows === 0 ? 'nothing waits for it' : `${rows} ${lagRows === 1 ? 'waits' : 'wait'} for it`}</small></td>`
  }
  if (lagRows === 0) return html`<td data-label="In step">Yes<br><small>0 rows</small></td>`
  const late = lagMs > 10_000
  return html`<td data-label="In step"${late ? html` class="c held"` : ''}>${late ? 'Behind' : 'Nearly'}<br><small>${rows}, ${lagMs < 10_000 ? `${(lagMs / 1_000).toFixed(1)} s` : span(lagMs)}</small></td>`
}

/** How much it keeps for others, and whether it takes more. */
function copies({ report, state }: NodeView, alone: boolean, old: string): Html {
  if (report === null || alone) return html`<td class="num muted" data-label="Keeps copies">–</td>`
  const takes = state !== 'alive' || report.takesCopies ? '' : html`<br><small>takes none</small>`
  return html`<td class="num${old}" data-label="Keeps copies">${count(report.copies)}${takes}</td>`
}

/** Its own mail that nobody else is known to have. */
function single({ report }: NodeView, alone: boolean, old: string): Html {
  if (report === null || alone) return html`<td class="num muted" data-label="One copy">–</td>`
  if (report.alone === 0 || old !== '')
    return html`<td class="num${old}" data-label="One copy">${count(report.alone)}</td>`
  return html`<td class="num" data-label="One copy"><a class="c held" href="/queue?alone=1">${count(report.alone)}</a></td>`
}

function disk({ report }: NodeView, old: string): Html {
  if (report === null || report.diskTotalBytes === 0)
    return html`<td class="num muted" data-label="Disk free">–</td>`
  const free = report.diskFreeBytes / report.diskTotalBytes
  const mark = free < 0.1 && old === '' ? ' c held' : old
  return html`<td class="num${mark}" data-label="Disk free">${Math.round(free * 100)} %<br><small>${size(report.diskFreeBytes)}</small></td>`
}

function offset(node: NodeView): Html {
  const { here, clockOffsetMs } = node
  if (here || clockOffsetMs === null || !isLiving(node))
    return html`<td class="num muted" data-label="Clock">–</td>`
  const far = Math.abs(clockOffsetMs) > OFFSET_MS
  const sign = clockOffsetMs < 0 ? '−' : '+'
  const value = Math.abs(clockOffsetMs)
  return html`<td class="num${far ? ' c held' : ''}" data-label="Clock">${sign}${value < 1_000 ? `${Math.round(value)} ms` : span(value)}</td>`
}

function buttons(node: NodeView, alone: boolean, visit: Visit): readonly Html[] {
  const path = `/cluster/nodes/${node.id}`
  const drain = act(visit, `${path}/drain`, { words: 'Drain', small: true })
  const undrain = act(visit, `${path}/undrain`, { words: 'Undrain', small: true })
  const away = node.here
    ? html`<a class="btn small danger" href="/cluster/leave">Leave</a>`
    : html`<a class="btn small danger" href="${path}/remove">Remove</a>`
  const last = alone ? [] : [away]
  switch (node.state) {
    case 'alive':
      return [drain, ...last]
    case 'draining':
    case 'drained':
      return [undrain, ...last]
    default:
      return last
  }
}

/** Nodes of a matrix that a person can still read. */
const MATRIX_MAX = 8

export function linksCard(view: ClusterView, conflicts: number): Html {
  const all = members(view)
  const [few, alone] = [all.length <= MATRIX_MAX, all.length < 2]
  const table = alone
    ? html`<div class="body"><small>Links begin with the second node.</small></div>`
    : few
      ? matrix(view, all)
      : troubles(view, all.length)
  return html`<section class="card" id="links" aria-labelledby="links-h"><header><h2 id="links-h">Links</h2>${alone ? '' : html`<small>time to answer, TCP and UDP</small>`}</header>
${table}
<div class="body first"><dl class="facts"><dt>Differences repaired</dt><dd>${repaired(view.repairs)}</dd><dt>Changes that wait</dt><dd>${waiting(view.parked)}</dd><dt>Conflicts</dt><dd>${conflicts === 0 ? '0' : html`<a href="/conflicts">${conflicts} to choose</a>`}</dd><dt>State</dt><dd><code>${view.digest}</code></dd><dt>Cluster</dt><dd><code>${view.clusterId}</code></dd></dl></div></section>`
}

function repaired(repairs: number): Html {
  if (repairs === 0) return html`0 since this node started`
  return html`<span class="c held">${count(repairs)} since this node started.</span> Nothing is lost, but it should be 0; please report it.`
}

function waiting(parked: number): Html {
  if (parked === 0) return html`0`
  return html`<span class="c held">${count(parked)}</span>, made by a clock that runs ahead; they count when their time comes.`
}

function matrix({ links }: ClusterView, all: readonly NodeView[]): Html {
  const found = (from: NodeView, to: NodeView) =>
    links.find((link) => link.from === from.id && link.to === to.id) ?? null
  return html`<div class="scroll"><table class="matrix"><caption class="sr">Links, a row for who asks</caption><thead><tr><th scope="col">From, to</th>${all.map((to) => html`<th scope="col">${to.name}</th>`)}</tr></thead><tbody>${all.map(
    (from) =>
      html`<tr><th scope="row">${from.name}</th>${all.map((to) => (from.id === to.id ? html`<td class="muted">–</td>` : linkCell(found(from, to))))}</tr>`,
  )}</tbody></table></div>`
}

function linkCell(link: Link | null): Html {
  const { mark, word, lines } = linkWords(link)
  return html`<td>${glyph(mark)} <b class="c ${mark}">${word}</b>${lines.map((line) => html`<small>${line}</small>`)}</td>`
}

type LinkWords = { readonly mark: Mark; readonly word: string; readonly lines: readonly string[] }

/** TCP first, UDP and what is wrong below it; a link that goes one way only is no link. */
function linkWords(link: Link | null): LinkWords {
  if (link === null || (link.tcp === null && link.udp === null)) {
    return { mark: 'unknown', word: 'not known', lines: ['not in reach'] }
  }
  const { tcp, udp, tcpMs, udpMs, trouble } = link
  const datagrams =
    udp === null
      ? 'UDP not known'
      : udp
        ? `UDP ${udpMs === null ? 'answers' : millis(udpMs)}`
        : 'UDP silent'
  const lines = trouble === null ? [datagrams] : [datagrams, trouble]
  if (tcp === false) return { mark: 'dead', word: 'no link', lines }
  if (tcp === null) return { mark: 'unknown', word: 'not known', lines }
  const word = tcpMs === null ? 'open' : millis(tcpMs)
  return { mark: udp === false ? 'warn' : 'alive', word, lines }
}

function millis(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
}

/** Too many for a matrix: only what does not work. */
function troubles(view: ClusterView, nodes: number): Html {
  const wrong = view.links.filter((link) => linkWords(link).mark !== 'alive')
  const all = nodes * (nodes - 1)
  if (wrong.length === 0) {
    return html`<div class="body"><p>${glyph('alive')} All ${count(all)} links work, both ways.</p></div>`
  }
  const shown = wrong.slice(0, 30)
  return html`<ul class="todo">${shown.map((link) => {
    const { mark, word, lines } = linkWords(link)
    return html`<li>${glyph(mark)}<div class="wrap"><b>${nameOf(view, link.from)} → ${nameOf(view, link.to)}</b>: ${word}<br><small>${lines.join('; ')}</small></div></li>`
  })}</ul><div class="body first"><small>${count(all - wrong.length)} of ${count(all)} links work${wrong.length > shown.length ? `; ${wrong.length - shown.length} more do not` : ''}.</small></div>`
}

const EVENTS: Readonly<Record<string, readonly [mark: Mark, words: string]>> = {
  alive: ['alive', 'answers'],
  suspect: ['suspect', 'gives no answer'],
  dead: ['dead', 'is dead: nothing more goes there'],
  draining: ['draining', 'takes no new mail'],
  drained: ['draining', 'is drained'],
  left: ['none', 'left for good'],
  evicted: ['none', 'was removed'],
  repaired: ['warn', 'had a difference that was repaired'],
  'runs twice': ['dead', 'runs twice'],
  'refuses this node': ['dead', 'refuses this node'],
}

const EVENTS_SHOWN = 12

export function eventsCard(view: ClusterView, nowMs: number): Html {
  const shown = view.events.toSorted((a, b) => b.atMs - a.atMs).slice(0, EVENTS_SHOWN)
  const list =
    shown.length === 0
      ? html`<div class="body"><small>Nothing since this node started.</small></div>`
      : html`<ol class="lanes one">${shown.map((event) => eventLine(event, nowMs))}</ol>`
  return html`<section class="card" id="happened" aria-labelledby="happened-h"><header><h2 id="happened-h">What happened</h2><small>${zoneName()} time, newest first</small></header>${list}</section>`
}

function eventLine({ atMs, name, what, detail }: Event, nowMs: number): Html {
  // In what state somebody joins is no news; that he joined is.
  const joins = detail === 'joined'
  const [mark, words] = joins ? (['pass', 'joined'] as const) : (EVENTS[what] ?? ['info', what])
  const long = longTime(atMs, nowMs)
  const at = long.startsWith('today') ? clockTime(atMs, true) : long
  return html`<li><i>${glyph(mark)}</i>${time(atMs, at)}<div>${name} ${words}${detail === '' || joins ? '' : html`<p>${detail}</p>`}</div></li>`
}

const TOKENS: Readonly<Record<TokenView['state'], readonly [mark: Mark, word: string]>> = {
  open: ['info', 'Open'],
  used: ['pass', 'Used'],
  expired: ['none', 'Expired'],
  revoked: ['none', 'Revoked'],
}

export function tokensCard(
  view: ClusterView,
  tokens: readonly TokenView[],
  visit: Visit,
  nowMs: number,
): Html {
  const shown = tokens.toSorted((a, b) => b.issuedMs - a.issuedMs).slice(0, 50)
  const rows = shown.map((token) => {
    const [mark, word] = TOKENS[token.state]
    const more =
      token.state === 'open'
        ? `, ${span(token.expiresMs - nowMs)}`
        : token.usedBy === null
          ? ''
          : ` by ${nameOf(view, token.usedBy)}`
    const revoke =
      token.state === 'open' && mayAct(visit)
        ? act(visit, `/cluster/invitations/${encodeURIComponent(token.id)}/revoke`, {
            words: 'Revoke',
            small: true,
          })
        : ''
    return html`<tr><td><code>${token.id}</code></td><td>${longTime(token.issuedMs, nowMs)}<br><small>on ${nameOf(view, token.issuer)} by ${token.by}</small></td><td>${badge(mark, `${word}${more}`)}</td><td class="num">${revoke}</td></tr>`
  })
  const list =
    rows.length === 0
      ? html`<div class="body"><small>No token was made on this node.</small></div>`
      : html`<div class="scroll"><table><thead><tr><th scope="col">Token</th><th scope="col">Issued</th><th scope="col">State</th><th scope="col"><span class="sr">Actions</span></th></tr></thead><tbody>${rows}</tbody></table></div>`
  return html`<section class="card" id="tokens" aria-labelledby="tokens-h"><header><h2 id="tokens-h">Tokens</h2><small>Only the node that made one takes it</small></header>${list}</section>`
}
