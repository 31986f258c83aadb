/** What every page says of the nodes: how many live, the list in the menu, the banner above. */
import type { Alarm, ClusterView, NodeState } from '../../src/admin/contract.ts'
import { some } from '../../src/base/prose.ts'
import { type Html, html } from '../html.ts'
import type { Site } from '../site.ts'
import { badge, glyph, type Mark, note } from './marks.ts'
import { clockTime, counted, day, longTime, span } from './words.ts'

export type NodeView = ClusterView['nodes'][number]

const STATES: Readonly<Record<NodeState, readonly [mark: Mark, word: string]>> = {
  alive: ['alive', 'Alive'],
  suspect: ['suspect', 'Suspect'],
  dead: ['dead', 'Dead'],
  draining: ['draining', 'Draining'],
  drained: ['draining', 'Drained'],
  left: ['none', 'Left'],
  evicted: ['none', 'Removed'],
}

export function stateBadge({ state }: NodeView): Html {
  return badge(...STATES[state])
}

/** Everybody who has not left for good. */
export function members({ nodes }: ClusterView): readonly NodeView[] {
  return nodes.filter(({ state }) => state !== 'left' && state !== 'evicted')
}

/** This node, whatever its state. */
export function hereIn({ nodes }: ClusterView): NodeView | null {
  return nodes.find(({ here }) => here) ?? null
}

/** Of a node that answers. */
export function isLiving({ state }: NodeView): boolean {
  return state === 'alive' || state === 'draining' || state === 'drained'
}

/** `2 of 3`. */
export function livingWords(view: ClusterView): string {
  const all = members(view)
  return `${all.filter(isLiving).length} of ${all.length}`
}

/** The name by which a person knows the node; the start of its id when it is not known here. */
export function nameOf(view: ClusterView, node: string): string {
  return view.nodes.find(({ id }) => id === node)?.name ?? node.slice(0, 8)
}

/** ` since 03:07`; empty when it is not known. */
export function sinceWords(atMs: number | null, nowMs: number): string {
  if (atMs === null) return ''
  return ` since ${day(atMs, nowMs) === 'today' ? clockTime(atMs) : longTime(atMs, nowMs)}`
}

/** Mails that wait on all nodes that answer; `here` is counted now, the others said so last. */
export function queuedOnAll(view: ClusterView, here: number): number {
  const others = members(view).filter((node) => !node.here && isLiving(node))
  return others.reduce((sum, { report }) => sum + (report?.queue ?? 0), here)
}

/** Nodes that the menu lists one by one. */
const PEERS_SHOWN = 8

export function peers(view: ClusterView, nowMs: number): Html {
  const all = members(view)
  const few = all.length <= PEERS_SHOWN
  const shown = few ? all : all.filter(({ here, state }) => here || state !== 'alive')
  const rest = all.length - shown.length
  return html`<ul class="peers" id="peers" aria-label="Nodes">${shown
    .slice(0, PEERS_SHOWN)
    .map((node) => peer(node, nowMs))}${
    shown.length > PEERS_SHOWN
      ? html`<li><a href="/cluster">${shown.length - PEERS_SHOWN} more to look at</a></li>`
      : ''
  }${rest === 0 ? '' : html`<li>${glyph('alive')}and ${rest} alive</li>`}</ul>`
}

function peer({ id, name, here, state, sinceMs }: NodeView, nowMs: number): Html {
  const [mark, word] = STATES[state]
  const wrong = state === 'suspect' || state === 'dead'
  const time = wrong && sinceMs !== null ? `, ${span(nowMs - sinceMs)}` : ''
  const words =
    here && !wrong && state === 'alive' ? 'you are here' : `${word.toLowerCase()}${time}`
  const shown = wrong ? html`<b class="c ${mark}">${name}</b>` : html`<span>${name}</span>`
  return html`<li id="p-${id}">${glyph(mark)}${shown} <small>${words}</small></li>`
}

/** What somebody should know whatever page is open; nothing when all is well. */
export function banner({ admin, clock }: Pick<Site, 'admin' | 'clock'>, view: ClusterView): Html {
  const all = members(view)
  const nowMs = clock.wallMs()
  const of = (...states: readonly NodeState[]) => all.filter(({ state }) => states.includes(state))
  const state = hereIn(view)?.state
  if (state === 'left' || state === 'evicted') return outside(state)
  return html`${admin.alarms().map(alarm)}${dead(of('dead'), nowMs)}${suspect(of('suspect'), nowMs)}${resting(of('draining', 'drained'))}`
}

const ALARMS: Readonly<Record<Alarm['kind'], Mark>> = {
  duplicate: 'dead',
  clock: 'warn',
  config: 'warn',
}

function alarm({ kind, message, advice }: Alarm): Html {
  return note(ALARMS[kind], html`<b>${message}</b> ${advice}`)
}

/** What this node still shows is what it knew. */
function outside(state: 'left' | 'evicted'): Html {
  const words = state === 'left' ? 'has left its cluster' : 'was removed from its cluster'
  return note(
    'warn',
    html`<b>This node ${words}.</b> It takes no mail any more, and what changes elsewhere is not seen here. Stop it; a fresh installation can join with a new token.`,
  )
}

function dead(nodes: readonly NodeView[], nowMs: number): Html {
  const [first, ...more] = nodes
  if (first === undefined) return html``
  if (more.length > 0) {
    const names = nodes.map(({ name }) => name)
    return note(
      'dead',
      html`<b>${some(names, 3)} do not answer.</b> ${keptWords(nodes)} The other nodes go on, and deliver what they have copies of.`,
      html`<a href="/cluster">What happened</a>`,
    )
  }
  return note(
    'dead',
    html`<b>${first.name} does not answer</b>${sinceWords(first.sinceMs, nowMs)}. ${keptWords(nodes)} The other nodes go on, and deliver what they have copies of. Nothing has to be done unless it is gone for good.`,
    html`<a href="/cluster#n-${first.id}">What happened</a>`,
  )
}

/** What is on the disks of nodes that do not answer, by their last word. */
function keptWords(nodes: readonly NodeView[]): string {
  const one = nodes.length === 1
  const reports = nodes.map(({ report }) => report).filter((report) => report !== null)
  if (reports.length < nodes.length) {
    return one ? 'What waits on it is not known.' : 'What waits on all of them is not known.'
  }
  const queue = reports.reduce((sum, report) => sum + report.queue, 0)
  const held = reports.reduce((sum, report) => sum + report.held, 0)
  const on = one ? 'on it' : 'on them'
  if (queue + held === 0) return `Nothing waited ${on}, by ${one ? 'its' : 'their'} last word.`
  const parts = [
    ...(queue === 0 ? [] : [counted(queue, 'queued mail')]),
    ...(held === 0 ? [] : [counted(held, 'held mail')]),
  ]
  return `By ${one ? 'its' : 'their'} last word ${parts.join(' and ')} waited ${on}.`
}

function suspect(nodes: readonly NodeView[], nowMs: number): Html {
  const [first] = nodes
  if (first === undefined) return html``
  const names = nodes.map(({ name }) => name)
  const when = nodes.length === 1 ? sinceWords(first.sinceMs, nowMs) : ''
  return note(
    'suspect',
    html`<b>${some(names, 3)} ${nodes.length === 1 ? 'gives' : 'give'} no answer</b>${when}. In a few seconds it is known whether this lasts.`,
    html`<a href="/cluster">Look</a>`,
  )
}

function resting(nodes: readonly NodeView[]): Html {
  if (nodes.length === 0) return html``
  const names = nodes.map(({ name }) => name)
  const one = nodes.length === 1
  const queue = nodes.reduce((sum, { report }) => sum + (report?.queue ?? 0), 0)
  const left =
    queue === 0
      ? `${one ? 'Its queue is' : 'Their queues are'} empty.`
      : `${counted(queue, 'mail')} of ${one ? 'its' : 'their'} queue ${queue === 1 ? 'is' : 'are'} still to go, to the other nodes or to their next hops.`
  return note(
    'draining',
    html`<b>${some(names, 3)} ${one ? 'takes' : 'take'} no new mail</b>, because somebody drained ${one ? 'it' : 'them'}. ${left}`,
    html`<a href="/cluster">Look</a>`,
  )
}
