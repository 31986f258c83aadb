/**
 * Lists in the DNS that can be believed: a list that says that it is not to be asked from here,
 * that is dead, or that lists everything, is not asked for a while, and what it would say is not
 * known. Sees all questions, so that what one mail finds out holds for the next.
 */
import type { Clock } from './clock.ts'
import type { DnsAnswer, DnsQuestion, Names } from './names.ts'
import type { Observer } from './observe.ts'

/** What a zone lists: addresses, or names. */
export type ListKind = 'address' | 'name'

export type ListTrouble = {
  readonly zone: string
  /** Wall ms since when it is not believed. */
  readonly sinceMs: number
  /** A whole sentence. */
  readonly cause: string
}

export type ListNamesDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly names: Names
  /** Zones of the settings, in lower case. */
  readonly zones: () => ReadonlyMap<string, ListKind>
  /** While nobody answers anything, no list is to blame. */
  readonly isSilent: () => boolean
}

/** Answers in a row that nobody gave, over at least this time, until a list counts as dead. */
const FAILURES_MAX = 3
const FAILURES_MS_MIN = 10_000
/** How long it is left out; then one question tries it. Doubled each time, up to the last. */
const OUT_MS_FIRST = 600_000
const OUT_MS_MAX = 4 * 3_600_000
/** Meanwhile the others go without it. */
const TRIAL_MS = 60_000
/** How often a list is asked for what no list may have. */
const CONTROL_MS = 3_600_000
/** RFC 5782 section 5: never on a list of addresses, never on a list of names. */
const NEVER: Readonly<Record<ListKind, string>> = { address: '1.0.0.127', name: 'invalid' }

type Health = {
  /** Null: it is believed. */
  out: { readonly sinceMs: number; readonly cause: string } | null
  untilMono: number
  pauseMs: number
  failures: number
  failingSinceMono: number
  controlMono: number
  /** Null: never asked. */
  control: Promise<DnsAnswer> | null
}

export class ListNames implements Names {
  readonly #deps: ListNamesDeps
  /** Of zones that were asked: as many as the settings had. */
  readonly #health = new Map<string, Health>()

  constructor(deps: ListNamesDeps) {
    this.#deps = deps
  }

  query(question: DnsQuestion, fresh?: 'fresh'): Promise<DnsAnswer> {
    const zone = this.#zoneOf(question.name.toLowerCase())
    return zone === null ? this.#deps.names.query(question, fresh) : this.#ask(question, ...zone)
  }

  /** Lists that are left out now, in the order of their names. */
  troubles(): readonly ListTrouble[] {
    const zones = this.#deps.zones()
    return [...this.#health]
      .flatMap(([zone, { out }]) => (out === null || !zones.has(zone) ? [] : [{ zone, ...out }]))
      .sort((one, other) => (one.zone < other.zone ? -1 : 1))
  }

  #zoneOf(name: string): readonly [string, ListKind] | null {
    const zones = this.#deps.zones()
    if (zones.size === 0) return null
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const zone = name.slice(dot + 1)
      const kind = zones.get(zone)
      if (kind !== undefined) return [zone, kind]
    }
    return null
  }

  async #ask(question: DnsQuestion, zone: string, kind: ListKind): Promise<DnsAnswer> {
    const { clock, names } = this.#deps
    const health = this.#healthOf(zone)
    const isTrial = health.out !== null
    if (health.out !== null) {
      if (clock.monoMs() < health.untilMono) return leftOut(health.out.cause)
      health.untilMono = clock.monoMs() + TRIAL_MS
    }
    const [answer, control] = await Promise.all([
      names.query(question),
      this.#control(zone, kind, health),
    ])
    // Said by another question meanwhile.
    if (!isTrial && health.out !== null) return leftOut(health.out.cause)
    const wrong = faultOf(zone, answer) ?? (listsAll(control) ? allListed(zone) : null)
    if (wrong !== null) return this.#leave(zone, health, wrong)
    if (answer.status !== 'failed') this.#believe(zone, health)
    else if (this.#hasFailed(health)) {
      return this.#leave(zone, health, `The list ${zone} does not answer: ${answer.cause}.`)
    }
    return answer
  }

  /** What it says of what no list may have: as it said lately, or is about to say. */
  #control(zone: string, kind: ListKind, health: Health): Promise<DnsAnswer> | null {
    const nowMono = this.#deps.clock.monoMs()
    if (nowMono - health.controlMono < CONTROL_MS) return health.control
    health.controlMono = nowMono
    const control = this.#deps.names.query({ name: `${NEVER[kind]}.${zone}`, type: 'A' })
    health.control = control
    return control
  }

  #hasFailed(health: Health): boolean {
    if (this.#deps.isSilent()) return false
    const nowMono = this.#deps.clock.monoMs()
    if (health.failures === 0) health.failingSinceMono = nowMono
    health.failures += 1
    // One that was tried after a while and is still dead need not be tried again.
    if (health.out !== null) return true
    return health.failures >= FAILURES_MAX && nowMono - health.failingSinceMono >= FAILURES_MS_MIN
  }

  #leave(zone: string, health: Health, cause: string): DnsAnswer {
    const { clock, observer } = this.#deps
    health.pauseMs = health.out === null ? OUT_MS_FIRST : Math.min(OUT_MS_MAX, 2 * health.pauseMs)
    health.out = { sinceMs: health.out?.sinceMs ?? clock.wallMs(), cause }
    health.untilMono = clock.monoMs() + health.pauseMs
    // It is asked again for what it must not have, too.
    health.controlMono = Number.NEGATIVE_INFINITY
    observer.emit('list.left', { zone, cause })
    return leftOut(cause)
  }

  #believe(zone: string, health: Health): void {
    health.failures = 0
    if (health.out === null) return
    health.out = null
    this.#deps.observer.emit('list.believed', { zone })
  }

  #healthOf(zone: string): Health {
    const known = this.#health.get(zone)
    if (known !== undefined) return known
    const fresh: Health = {
      out: null,
      untilMono: 0,
      pauseMs: OUT_MS_FIRST,
      failures: 0,
      failingSinceMono: 0,
      controlMono: Number.NEGATIVE_INFINITY,
      control: null,
    }
    const zones = this.#deps.zones()
    for (const old of this.#health.keys()) if (!zones.has(old)) this.#health.delete(old)
    this.#health.set(zone, fresh)
    return fresh
  }
}

function leftOut(cause: string): DnsAnswer {
  return { status: 'failed', cause, leftOut: true }
}

/** Why no answer of this list can be believed; null: it can. A sentence. */
function faultOf(zone: string, answer: DnsAnswer): string | null {
  if (answer.status !== 'found') return null
  // RFC 5782 leaves the codes to the lists; 127.255.255.0/24 means a fault of the asker on all of them.
  const blocked = answer.records.find((record) => record.startsWith('127.255.255.'))
  if (blocked !== undefined) {
    return `The list ${zone} says with ${blocked} that this gateway must not ask it: too often, or by a public name server.`
  }
  const foreign = answer.records.find(
    (record) => /^\d+\.\d+\.\d+\.\d+$/.test(record) && !record.startsWith('127.'),
  )
  return foreign === undefined
    ? null
    : `The list ${zone} is gone: it answers with ${foreign}, which no list does.`
}

function listsAll(control: DnsAnswer | null): boolean {
  return control?.status === 'found'
}

function allListed(zone: string): string {
  return `The list ${zone} lists everything, also what no list may have.`
}
