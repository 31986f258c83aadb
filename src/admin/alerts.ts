/**
 * What somebody should look at: one list for the page, the commands and the API. Computed from what
 * nodes say of themselves; nothing is stored but since when each has been so.
 */
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import type { NodeReport, NodeView } from '../cluster/contract.ts'
import type { Patience } from '../cluster/patience.ts'
import type { NodeName } from '../message/rows.ts'
import type { Alarm, Alert, AlertKind } from './contract.ts'
import type { QueueTotals } from './mail-actions.ts'
import {
  NOTHING_OUTSIDE,
  OUTSIDE_KINDS,
  type Outside,
  type OutsideKind,
  outsideAlerts,
  outsideTitle,
} from './outside.ts'
import { type LostKey, lostKeysAlert } from './signing-alert.ts'

/** A mail has one copy for a moment whenever a node goes away: only what lasts is told. */
const SETTLED_MS = 10_000
/** What was counted up in this time is still news. */
const RECENT_MS = 600_000
/** A clock this far away is worth a look; at 60 s settings become read-only. */
const OFFSET_MS = 5_000
/** How often the queue and the quarantine are counted, and the list is made unasked. */
const LOOK_MS = 2_000
/** Parts of the disk: below the first no mail is taken, below the second no copies. */
const DISK_MAIL = 0.05
const DISK_COPIES = 0.1

export type AlertsDeps = {
  readonly clock: Clock
  readonly observer: Pick<Observer, 'count'>
  readonly nodes: () => readonly NodeView[]
  readonly alarms: () => readonly Alarm[]
  readonly totals: () => QueueTotals
  /** Rows of the future. */
  readonly parked: () => number
  /** Why this node takes no mail, whole sentences. */
  readonly problems: () => readonly string[]
  /** Held messages for which somebody clicked, and whose owner does not answer. */
  readonly pending: () => number
  readonly patience: Patience
  /** Name servers, lists and clients of this node. */
  readonly outside?: Outside
  /** Keys that sign without a record, of the whole cluster. */
  readonly lostKeys: () => readonly LostKey[]
}

type Draft = Omit<Alert, 'sinceMs' | 'id'> & {
  /** Null: since it was seen first. */
  readonly sinceMs?: number | null
  /** Told when it has been so for this long. */
  readonly afterMs?: number
}

export class Alerts {
  readonly #deps: AlertsDeps
  /** By id: when it was seen first. */
  #first = new Map<string, number>()
  /** By counter: how far it was, and when it grew last. */
  readonly #grown = new Map<string, { count: number; atMono: number }>()
  #counts = { atMono: Number.NEGATIVE_INFINITY, inDoubt: 0, pending: 0 }
  #lookedMono = Number.NEGATIVE_INFINITY

  constructor(deps: AlertsDeps) {
    this.#deps = deps
  }

  /** The worst first, then the oldest. */
  current(): readonly Alert[] {
    this.#lookedMono = this.#deps.clock.monoMs()
    const nowMs = this.#deps.clock.wallMs()
    const first = new Map<string, number>()
    const alerts: Alert[] = []
    for (const { sinceMs = null, afterMs = 0, ...draft } of this.#drafts(nowMs)) {
      const id = draft.node === null ? draft.kind : `${draft.kind} ${draft.node.id}`
      const seenMs = sinceMs ?? this.#first.get(id) ?? nowMs
      first.set(id, seenMs)
      if (nowMs - seenMs >= afterMs) alerts.push({ id, ...draft, sinceMs: seenMs })
    }
    this.#first = first
    const rank = ({ level, sinceMs }: Alert) => (level === 'bad' ? 0 : 1e15) + sinceMs
    return alerts.sort((a, b) => rank(a) - rank(b))
  }

  /** Notes what has begun, also while nobody reads the list. Called often. */
  look(): void {
    if (this.#deps.clock.monoMs() - this.#lookedMono >= LOOK_MS) this.current()
  }

  /** What peers are told of this node. */
  told(): Pick<NodeReport, 'inDoubt' | 'troubles'> {
    return { inDoubt: this.#counted().inDoubt, troubles: this.#troubles() }
  }

  #drafts(nowMs: number): readonly Draft[] {
    const members = this.#deps
      .nodes()
      .filter(({ state }) => state !== 'left' && state !== 'evicted')
    const { pending } = this.#counted()
    const lost = lostKeysAlert(this.#deps.lostKeys())
    return [
      ...this.#deps.alarms().map(ofAlarm),
      ...members.flatMap((node) => this.#ofNode(node, members, nowMs)),
      ...(pending === 0 ? [] : [ofPending(pending)]),
      ...(lost === null ? [] : [lost]),
    ]
  }

  #ofNode(node: NodeView, members: readonly NodeView[], nowMs: number): readonly Draft[] {
    const { report, state, here } = node
    const { patience, problems } = this.#deps
    if (state === 'dead') return [dead(node, patience)]
    if (state === 'suspect') return []
    const drained = state !== 'alive' ? [resting(node, patience)] : []
    const outside = here ? this.#outside(node) : []
    if (report === null) return [...drained, ...outside]
    const troubles = here ? this.#troubles() : report.troubles
    const isReady = here ? problems().length === 0 : report.ready
    const inDoubt = here ? this.#counted().inDoubt : report.inDoubt
    return [
      ...drained,
      ...outside,
      ...(isReady || state !== 'alive' ? [] : [notReady(node, here ? problems() : [])]),
      ...disk(node, report),
      ...(report.alone === 0 || members.length < 2 ? [] : [alone(node, report, members)]),
      ...(inDoubt === 0 ? [] : [doubtful(node, inDoubt)]),
      ...farClock(node),
      // Of this node the alarms above say more.
      ...troubles.flatMap((word) =>
        here && SAID_ABOVE.has(word)
          ? []
          : [ofTrouble(node, word, here ? this.#deps.parked() : null)],
      ),
    ].map((draft) => ({ ...draft, sinceMs: sinceOf(draft, nowMs) }))
  }

  #outside(node: NodeView): readonly Draft[] {
    const { outside = NOTHING_OUTSIDE } = this.#deps
    return outsideAlerts(outside, node.name).map((told) => ({ ...told, node: nameOf(node) }))
  }

  /** Words of AlertKind that only this node can know. */
  #troubles(): readonly AlertKind[] {
    const { alarms, observer, parked, outside = NOTHING_OUTSIDE } = this.#deps
    return [
      ...outsideAlerts(outside, '').map(({ kind }) => kind),
      ...new Set(alarms().map(({ kind }) => kind)),
      ...(observer.count('spool_corrupt_total') > 0 ? (['spool'] as const) : []),
      ...(observer.count('rolled_back_total') > 0 ? (['rolledBack'] as const) : []),
      ...(this.#grew('copies_refused_total') ? (['refused'] as const) : []),
      ...(this.#grew('inspect_replaced_total') ? (['inspector'] as const) : []),
      ...(parked() > 0 ? (['parked'] as const) : []),
    ]
  }

  /** Was something counted lately? */
  #grew(counter: string): boolean {
    const count = this.#deps.observer.count(counter)
    const before = this.#grown.get(counter)
    const nowMono = this.#deps.clock.monoMs()
    if (count > (before?.count ?? 0)) this.#grown.set(counter, { count, atMono: nowMono })
    const atMono = this.#grown.get(counter)?.atMono
    return atMono !== undefined && nowMono - atMono < RECENT_MS
  }

  #counted(): { readonly inDoubt: number; readonly pending: number } {
    const { clock, totals, pending } = this.#deps
    const atMono = clock.monoMs()
    if (atMono - this.#counts.atMono >= LOOK_MS) {
      this.#counts = { atMono, inDoubt: totals().inDoubt, pending: pending() }
    }
    return this.#counts
  }
}

/** A time in the future is no time. */
function sinceOf({ sinceMs = null }: Draft, nowMs: number): number | null {
  return sinceMs === null ? null : Math.min(sinceMs, nowMs)
}

const SAID_ABOVE: ReadonlySet<string> = new Set<AlertKind>([
  'clock',
  'config',
  'duplicate',
  ...OUTSIDE_KINDS,
])

const ALARM_TITLES: Readonly<Record<Alarm['kind'], string>> = {
  clock: 'The clock of this node is wrong',
  config: 'The newest configuration is not in force here',
  duplicate: 'Two machines run as one node',
}

function ofAlarm({ kind, message, advice }: Alarm): Draft {
  const level = kind === 'duplicate' ? 'bad' : 'warn'
  return {
    kind,
    level,
    node: null,
    title: ALARM_TITLES[kind],
    meaning: message,
    advice,
    command: null,
  }
}

function dead(node: NodeView, { adoptConfirmedMs, adoptSilentMs }: Patience): Draft {
  const { name, report, sinceMs, lagRows } = node
  const kept =
    report === null
      ? 'What waits on it is not known.'
      : `By its last word ${counted(report.queue, 'mail', 'mails')} waited in its queue, and ${counted(report.held, 'was', 'were')} held there.`
  const late = lagRows === 0 ? '' : ` ${counted(lagRows, 'change waits', 'changes wait')} for it.`
  return {
    kind: 'dead',
    level: 'bad',
    node: nameOf(node),
    sinceMs,
    title: `${name} does not answer`,
    meaning: `${kept}${late} Nodes with copies deliver its queue by themselves: after ${span(adoptConfirmedMs)} when its death is certain, else after ${span(adoptSilentMs)} of silence.`,
    advice: `Nothing has to be done while it may come back. If it is gone for good, remove it: its queue goes on at once, and its held mail can be released.`,
    command: `postern remove ${name}`,
  }
}

function resting(node: NodeView, { drainedMs }: Patience): Draft {
  const { name, state } = node
  return {
    kind: 'drained',
    level: 'warn',
    node: nameOf(node),
    afterMs: drainedMs,
    title: `${name} is ${state}`,
    meaning:
      'It takes no new mail and keeps no copies, so the other nodes carry its part, and what they take may have one copy only.',
    advice: 'Let it take mail again when the work on it is done.',
    command: `postern undrain ${name}`,
  }
}

function notReady(node: NodeView, problems: readonly string[]): Draft {
  return {
    kind: 'notReady',
    level: 'bad',
    node: nameOf(node),
    afterMs: SETTLED_MS,
    title: `${node.name} takes no mail`,
    meaning: problems.length === 0 ? 'It runs, and refuses new mail.' : problems.join(' '),
    advice: `Its own check says what is missing: run this on ${node.name}.`,
    command: 'postern doctor',
  }
}

function disk(node: NodeView, { diskFreeBytes, diskTotalBytes }: NodeReport): readonly Draft[] {
  const part = diskTotalBytes === 0 ? 1 : diskFreeBytes / diskTotalBytes
  if (part >= DISK_COPIES) return []
  const takesMail = part >= DISK_MAIL
  return [
    {
      kind: 'disk',
      level: takesMail ? 'warn' : 'bad',
      node: nameOf(node),
      title: `The disk of ${node.name} is nearly full`,
      meaning: takesMail
        ? `Only ${Math.floor(part * 100)} % are free: below 10 % it keeps no copies for others, below 5 % it takes no mail.`
        : `Only ${Math.floor(part * 100)} % are free: below 5 % it takes no mail, and senders are told to come again.`,
      advice: 'Make room on it, or give it a larger disk.',
      command: null,
    },
  ]
}

function alone(node: NodeView, report: NodeReport, members: readonly NodeView[]): Draft {
  const takers = members.filter(
    (other) =>
      other.id !== node.id && other.state === 'alive' && other.report?.takesCopies === true,
  )
  return {
    kind: 'alone',
    level: 'bad',
    node: nameOf(node),
    afterMs: SETTLED_MS,
    title: `${counted(report.alone, 'mail has', 'mails have')} one copy only, on ${node.name}`,
    meaning: `If the disk of ${node.name} were lost now, ${report.alone === 1 ? 'this mail' : 'these mails'} would be lost.`,
    advice:
      takers.length === 0
        ? 'No other node takes copies now: start one, undrain one, or make room on its disk. The rest goes by itself.'
        : `Nothing has to be done: ${some(takers.map(({ name }) => name))} ${takers.length === 1 ? 'takes' : 'take'} copies, and they are being made.`,
    command: null,
  }
}

function doubtful(node: NodeView, inDoubt: number): Draft {
  return {
    kind: 'inDoubt',
    level: 'warn',
    node: nameOf(node),
    title: `${counted(inDoubt, 'mail', 'mails')} on ${node.name} may have been delivered`,
    meaning:
      'The node or the connection ended after the mail was sent and before the answer. It is sent again, with the same bytes, and may arrive twice.',
    advice: 'Nothing has to be done. To send it now instead of in a few minutes, run:',
    command: 'postern queue retry',
  }
}

function farClock(node: NodeView): readonly Draft[] {
  const { clockOffsetMs, here, name } = node
  if (here || clockOffsetMs === null || Math.abs(clockOffsetMs) <= OFFSET_MS) return []
  const way = clockOffsetMs > 0 ? 'ahead of' : 'behind'
  return [
    {
      kind: 'clock',
      level: 'warn',
      node: nameOf(node),
      title: `The clock of ${name} is ${span(Math.abs(clockOffsetMs))} ${way} this one`,
      meaning:
        'Times in lists do not fit together. From 60 s on, a node whose clock differs from most others takes no changes of settings.',
      advice: 'Let both nodes set their clocks by NTP; on the one that is wrong run:',
      command: 'timedatectl set-ntp true',
    },
  ]
}

/** `parked`: how many rows, of this node. */
function ofTrouble(node: NodeView, word: string, parked: number | null): Draft {
  const { name } = node
  const about = { node: nameOf(node), command: null }
  switch (word) {
    case 'spool':
      return {
        ...about,
        kind: 'spool',
        level: 'bad',
        title: `The spool of ${name} has damaged records`,
        meaning:
          'What fails its checksum is not delivered from there; another copy is, where there is one. It is told until the node starts again.',
        advice: `Look for spool.corrupted in the log of ${name}, and test its disk and memory.`,
      }
    case 'rolledBack':
      return {
        ...about,
        kind: 'rolledBack',
        level: 'bad',
        title: `The disk of ${name} went back in time`,
        meaning:
          'Other nodes know of things that it did and that its disk does not: an older image was put back. What they know to be done is not done again; the rest may arrive twice. It is told until the node starts again.',
        advice: `Never put back a snapshot of a node. If this was not you, look at the disk of ${name}; a node that is let in anew gets its mail from the others.`,
      }
    case 'inspector':
      return {
        ...about,
        kind: 'inspector',
        level: 'warn',
        title: `${name} had to end inspector processes`,
        meaning:
          'They took too long, too much memory, or crashed on a mail. Nothing of it was taken for clean: its sender was asked to come again.',
        advice: 'One mail that comes again and again can be found in Messages as `is:unknown`.',
        command: 'postern trace is:unknown',
      }
    case 'refused':
      return {
        ...about,
        kind: 'refused',
        level: 'warn',
        title: `${name} refused copies of other nodes`,
        meaning: 'In the last minutes their mail had to go to another node, or has one copy only.',
        advice: `Its log says why (copy.refused); most often its disk has too little room.`,
      }
    case 'parked':
      return {
        ...about,
        kind: 'parked',
        level: 'warn',
        title: `${parked === null ? 'Changes' : counted(parked, 'change', 'changes')} on ${name} ${parked === 1 ? 'waits' : 'wait'} for the future`,
        meaning:
          'Some node made them while its clock ran ahead. They count when their time has come.',
        advice: 'Find the node whose clock is ahead on the page Cluster, and set it right.',
      }
    case 'names':
    case 'list':
    case 'engine':
    case 'ban':
      return ofOutside(node, word)
    case 'clock':
    case 'config':
    case 'duplicate':
      return {
        ...about,
        kind: word,
        level: word === 'duplicate' ? 'bad' : 'warn',
        title: ALARM_TITLES[word].replace('this node', name).replace('here', `on ${name}`),
        meaning: `${name} says so of itself, and says more on its own pages.`,
        advice: `Look at the page Alerts of ${name}, or run there:`,
        command: 'postern status',
      }
    default:
      return {
        ...about,
        kind: 'other',
        level: 'warn',
        title: `${name} warns of something`,
        meaning: 'It runs a newer version, and this one has no words for it.',
        advice: `Look at the page Alerts of ${name}, or run there:`,
        command: 'postern status',
      }
  }
}

function ofOutside(node: NodeView, kind: OutsideKind): Draft {
  return {
    kind,
    level: kind === 'names' || kind === 'engine' ? 'bad' : 'warn',
    node: nameOf(node),
    title: outsideTitle(kind, node.name),
    meaning: `${node.name} says so of itself, and says more on its own pages.`,
    advice: `Look at the page Alerts of ${node.name}, or run there:`,
    command: 'postern status',
  }
}

function ofPending(waiting: number): Draft {
  return {
    kind: 'pending',
    level: 'warn',
    node: null,
    afterMs: SETTLED_MS,
    title: `${counted(waiting, 'held mail waits', 'held mails wait')} for a node`,
    meaning:
      'Somebody released or deleted it while its node gave no answer. Only that node decides, so that nothing is released twice.',
    advice:
      'It is done when the node answers. If the node is gone for good, remove it; or release one mail anyway on its page.',
    command: null,
  }
}

function nameOf({ id, name }: NodeView): NodeName {
  return { id, name }
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`
}

function some(names: readonly string[]): string {
  return names.length <= 3 ? names.join(', ') : `${names.length} nodes`
}

/** `2 min`, `10 min`, `45 s`; with another time scale `1.2 s`. */
function span(ms: number): string {
  if (ms < 10_000) return `${Math.round(ms / 100) / 10} s`
  if (ms < 90_000) return `${Math.round(ms / 1_000)} s`
  return ms < 5_400_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`
}
