/**
 * Counters of the last seconds, told to the peers at most once a second: what changed, the largest
 * first, so that a flood of keys costs no more than a second's message. Kept in memory only; what
 * nobody repeats is over at the time that was told with it. Times travel as what remains of them.
 */
import type { Clock, Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Tally, Topic } from '../base/tally.ts'
import {
  type Link,
  type Links,
  type Liveness,
  MESSAGE,
  type Member,
  type Roster,
} from './contract.ts'
import { ranked } from './rank.ts'

const TELL_MS = 1_000
/** Who lives is looked up so often. */
const LIVING_MS = 100
/** What is said within this time goes together. */
const GATHER_MS = 50
/** Keys of one topic in one message; 40 bytes each. */
const TOLD_MAX = 500
/** Own keys of one topic, and those heard of; the one longest unchanged is forgotten first. */
const OWN_MAX = 5_000
const HEARD_MAX = 50_000
const TOPICS_MAX = 16
const KEY_CHARS_MAX = 300
const REST_MS_MAX = 3_600_000
const VALUE_MAX = 1e12

type Said = { readonly value: number; readonly untilMono: number }
type Entry = readonly [key: string, value: number, restMs: number]

export type TallyDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly links: Links
  readonly members: { get(node: NodeId): Pick<Liveness, 'life'> | null }
  readonly roster: Pick<Roster, 'self' | 'members'>
}

export class ClusterTally implements Tally {
  readonly #deps: TallyDeps
  readonly #topics = new Map<string, HeardTopic>()
  /** Links on which nothing was told yet: they hear all of it once. */
  readonly #fresh = new Set<Link>()
  #timer: Timer | null = null
  #toldMono = Number.NEGATIVE_INFINITY
  #isClosed = false
  #living: readonly NodeId[] = []
  #lookedMono = Number.NEGATIVE_INFINITY

  constructor(deps: TallyDeps) {
    this.#deps = deps
    const { links } = deps
    links.onMessage(MESSAGE.tally, (link, body) => this.#heard(link, body))
    links.onOpen((link) => {
      this.#fresh.add(link)
      this.#plan()
    })
    links.onClose((link) => this.#fresh.delete(link))
    for (const link of links.all()) this.#fresh.add(link)
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  topic(name: string): Topic {
    const known = this.#topics.get(name)
    if (known !== undefined) return known
    const topic = new HeardTopic(this.#deps.clock, {
      news: () => this.#plan(),
      isLiving: (node) => this.#livingNodes().includes(node),
    })
    this.#topics.set(name, topic)
    return topic
  }

  living(): number {
    return this.#livingNodes().length
  }

  share(): number {
    return Math.min(1, this.living() / Math.max(1, this.#workers().length))
  }

  place(key: string): number {
    const { node } = this.#deps.roster.self
    return Math.max(0, ranked(key, this.#livingNodes()).indexOf(node))
  }

  /** Members that take part in the work, or will when they are back; this node always. */
  #workers(): readonly Member[] {
    const { roster } = this.#deps
    return roster
      .members()
      .filter(({ node, drain }) => node === roster.self.node || drain !== 'drained')
  }

  /** Asked for every attempt and every mail: looked up a few times a second. */
  #livingNodes(): readonly NodeId[] {
    const { roster, members, clock } = this.#deps
    const nowMono = clock.monoMs()
    if (nowMono - this.#lookedMono < LIVING_MS) return this.#living
    this.#lookedMono = nowMono
    this.#living = this.#workers()
      .map(({ node }) => node)
      .filter((node) => node === roster.self.node || members.get(node)?.life === 'alive')
    return this.#living
  }

  #plan(): void {
    if (this.#timer !== null || this.#isClosed) return
    const { clock } = this.#deps
    const waitMs = Math.max(GATHER_MS, this.#toldMono + TELL_MS - clock.monoMs())
    this.#timer = clock.after(waitMs, () => {
      this.#timer = null
      this.#toldMono = clock.monoMs()
      this.#tell()
    })
  }

  #tell(): void {
    const { links } = this.#deps
    const changed = this.#gather((topic) => topic.changed())
    const all = this.#fresh.size === 0 ? null : this.#gather((topic) => topic.all())
    for (const link of links.all()) {
      const body = this.#fresh.delete(link) ? all : changed
      // A link that is full loses a second of it.
      if (body !== null) link.send(MESSAGE.tally, body)
    }
  }

  #gather(said: (topic: HeardTopic) => readonly Entry[]): Uint8Array | null {
    const topics: Record<string, readonly Entry[]> = {}
    for (const [name, topic] of this.#topics) {
      const entries = said(topic)
      if (entries.length > 0) topics[name] = entries
    }
    if (Object.keys(topics).length === 0) return null
    return new TextEncoder().encode(JSON.stringify(topics))
  }

  #heard(link: Link, body: Uint8Array): void {
    const topics = readTally(body)
    if (topics === null) {
      this.#deps.observer.emit('sync.refused', { peer: link.peer, why: 'tally' })
      link.close('it sent a message that cannot be read')
      return
    }
    for (const [name, entries] of topics) this.#topics.get(name)?.heard(link.peer, entries)
  }
}

class HeardTopic implements Topic {
  readonly #clock: Clock
  readonly #news: () => void
  readonly #isLiving: (node: NodeId) => boolean
  /** What this node said; the last changed key is the last one. */
  readonly #own = new Map<string, Said>()
  readonly #changed = new Set<string>()
  /** By key, what each of the others said last. */
  readonly #others = new Map<string, Map<NodeId, Said>>()
  readonly #listeners: ((key: string, value: number) => void)[] = []

  constructor(
    clock: Clock,
    { news, isLiving }: { readonly news: () => void; readonly isLiving: (node: NodeId) => boolean },
  ) {
    this.#clock = clock
    this.#news = news
    this.#isLiving = isLiving
  }

  tell(key: string, value: number, restMs: number): void {
    if (key.length > KEY_CHARS_MAX) return
    this.#own.delete(key)
    this.#own.set(key, { value, untilMono: this.#clock.monoMs() + restMs })
    forgetFirst(this.#own, OWN_MAX)
    this.#changed.add(key)
    forgetFirst(this.#changed, OWN_MAX)
    this.#news()
  }

  sum(key: string): number {
    let sum = 0
    for (const { value } of this.#inForce(key)) sum += value
    return sum
  }

  least(key: string): number | null {
    const own = this.#own.get(key)
    let least = own === undefined || this.#isOver(own) ? null : own.value
    for (const { value } of this.#inForce(key)) least = Math.min(least ?? value, value)
    return least
  }

  restMs(key: string): number {
    let untilMono = 0
    for (const [node, said] of this.#others.get(key) ?? []) {
      if (this.#isLiving(node)) untilMono = Math.max(untilMono, said.untilMono)
    }
    return Math.max(0, untilMono - this.#clock.monoMs())
  }

  onHeard(listener: (key: string, value: number) => void): void {
    this.#listeners.push(listener)
  }

  /** What changed since it was asked last, the largest first. */
  changed(): readonly Entry[] {
    const keys = [...this.#changed]
    this.#changed.clear()
    return this.#entries(keys)
  }

  /** What is not over yet: a listener would take what is for news. */
  all(): readonly Entry[] {
    const inForce = [...this.#own].filter(([, said]) => !this.#isOver(said))
    return this.#entries(inForce.map(([key]) => key))
  }

  heard(node: NodeId, entries: readonly Entry[]): void {
    const nowMono = this.#clock.monoMs()
    for (const [key, value, restMs] of entries) {
      const said = this.#others.get(key) ?? new Map<NodeId, Said>()
      this.#others.delete(key)
      this.#others.set(key, said)
      said.set(node, { value, untilMono: nowMono + restMs })
    }
    forgetFirst(this.#others, HEARD_MAX)
    for (const [key, value] of entries) {
      for (const listener of this.#listeners) listener(key, value)
    }
  }

  #entries(keys: Iterable<string>): readonly Entry[] {
    const nowMono = this.#clock.monoMs()
    const entries: Entry[] = []
    for (const key of keys) {
      const said = this.#own.get(key)
      if (said === undefined) continue
      const restMs = Math.max(0, Math.round(said.untilMono - nowMono))
      entries.push([key, said.value, restMs])
    }
    if (entries.length <= TOLD_MAX) return entries
    return entries.sort((a, b) => b[1] - a[1]).slice(0, TOLD_MAX)
  }

  *#inForce(key: string): Generator<Said> {
    for (const said of this.#others.get(key)?.values() ?? []) if (!this.#isOver(said)) yield said
  }

  #isOver({ untilMono }: Said): boolean {
    return untilMono <= this.#clock.monoMs()
  }
}

function forgetFirst(entries: Map<string, unknown> | Set<string>, most: number): void {
  while (entries.size > most) {
    const [first] = entries.keys()
    if (first === undefined) return
    entries.delete(first)
  }
}

/** Null: not what a node of ours sends. Topics of later versions are there, and nobody asks. */
function readTally(body: Uint8Array): readonly (readonly [string, readonly Entry[]])[] | null {
  let raw: unknown
  try {
    raw = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    return null
  }
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return null
  const topics = Object.entries(raw)
  if (topics.length > TOPICS_MAX) return null
  for (const [, entries] of topics) {
    if (!Array.isArray(entries) || entries.length > TOLD_MAX || !entries.every(isEntry)) return null
  }
  return topics as readonly (readonly [string, readonly Entry[]])[]
}

function isEntry(raw: unknown): raw is Entry {
  if (!Array.isArray(raw)) return false
  const [key, value, restMs] = raw as readonly unknown[]
  if (typeof key !== 'string' || key.length > KEY_CHARS_MAX) return false
  return isWithin(value, VALUE_MAX) && isWithin(restMs, REST_MS_MAX)
}

function isWithin(raw: unknown, most: number): boolean {
  return typeof raw === 'number' && raw >= 0 && raw <= most
}
