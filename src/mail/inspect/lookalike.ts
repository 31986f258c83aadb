/**
 * Domains that are made to be taken for another one: by letters that look alike, by a slip of the
 * fingers, by an added word, by another ending, by the whole name in front of a stranger's.
 */
import { domainToUnicode } from 'node:url'
import { isOneApart, skeletonOf } from './skeleton.ts'
import { domainOf } from './urls.ts'

export type Likeness = {
  /** The domain that is imitated. */
  readonly of: string
  readonly score: number
  /** How, to follow "The domain x ". */
  readonly how: string
}

/** Words that are added to a name to make it sound official. */
const BAIT = new Set(
  'access account accounts admin alert alerts app assist auth bank bill billing board career careers center centre ceo cfo check client cloud co company confirm connect contact corp corporate customer customers delivery desk digital direct doc docs document documents email eu finance global group gmbh head headquarters help helpdesk holding home hq hr id inc info int international invoice invoices it jobs legal limited llc login ltd mail mailbox mails management member message my net network news notice notify office official online order orders pay payment payments payroll portal pro reset sales secure secured security server service services share shared shop sign signin site sso staff store support team tech update us verify vpn web webmail'.split(
    ' ',
  ),
)

type Guarded = {
  readonly domain: string
  /** The registered domain without its suffix, and how that looks. */
  readonly label: string
  readonly look: string
  readonly suffix: string
}

/** Shorter names are too many to be like each other by will. */
const LABEL_CHARS_MIN = 4

export class Lookalikes {
  readonly #names: ReadonlySet<string>
  /** Registered domains: all below them is theirs too. */
  readonly #owned: ReadonlySet<string>
  readonly #byLook = new Map<string, Guarded>()
  readonly #byLength = new Map<number, Guarded[]>()

  /** Domains that are imitated, as A-labels, and more that imitate nobody. */
  constructor(domains: readonly string[], others: readonly string[] = []) {
    this.#names = new Set(domains)
    this.#owned = new Set([...domains, ...others].map(domainOf))
    for (const domain of [...this.#names].sort()) {
      const { label, suffix } = partsOf(domain)
      const guarded = { domain, label, look: skeletonOf(readable(label)), suffix }
      if (label.length < LABEL_CHARS_MIN || this.#byLook.has(guarded.look)) continue
      this.#byLook.set(guarded.look, guarded)
      const same = this.#byLength.get(guarded.look.length)
      if (same === undefined) this.#byLength.set(guarded.look.length, [guarded])
      else same.push(guarded)
    }
  }

  /** The domain, or one above it, is one of those that were given. */
  has(domain: string): boolean {
    return this.#owned.has(domainOf(domain))
  }

  /** Null: it is like none of them, or it is one. */
  find(domain: string): Likeness | null {
    if (this.#byLook.size === 0 || this.has(domain)) return null
    const { label, suffix, below } = partsOf(domain)
    const look = skeletonOf(readable(label))
    return (
      this.#same(label, look, suffix) ??
      this.#inFront(below) ??
      this.#withWords(label) ??
      this.#slipped(look)
    )
  }

  #same(label: string, look: string, suffix: string): Likeness | null {
    const guarded = this.#byLook.get(look)
    if (guarded === undefined) return null
    if (label !== guarded.label) {
      return { of: guarded.domain, score: 8, how: `looks the same as ${guarded.domain}` }
    }
    if (suffix === guarded.suffix) return null
    return { of: guarded.domain, score: 4, how: `is ${guarded.domain} with another ending` }
  }

  /** `example.com.evil.net`, `example-com.evil.net`. A name alone is how many services name their customers. */
  #inFront(below: string): Likeness | null {
    if (below === '') return null
    for (const name of [below, below.split('.').slice(-2).join('.')]) {
      if (this.#owned.has(name)) {
        return { of: name, score: 8, how: `has ${name} in front of its own name` }
      }
    }
    for (const part of below.split('.')) {
      const joined = this.#names.has(part.replace(/-(?=[^-]*$)/, '.'))
      if (joined) return { of: part, score: 6, how: `has ${part} in front of its own name` }
    }
    return null
  }

  /** `example-billing`, `secure-example`, `examplesupport`, `exarnple-it`, `example-com`. */
  #withWords(label: string): Likeness | null {
    const parts = label.split('-').filter((part) => part !== '')
    if (parts.length > 1) {
      const whole = this.#byLook.get(skeletonOf(parts.join('')))
      if (whole !== undefined) {
        return { of: whole.domain, score: 6, how: `is ${whole.domain} with a dash` }
      }
      for (const [from, to] of runs(parts.length)) {
        const part = parts.slice(from, to).join('-')
        const guarded = this.#byLook.get(skeletonOf(readable(part)))
        if (guarded === undefined) continue
        const rest = [...parts.slice(0, from), ...parts.slice(to)]
        const endings = guarded.suffix.split('.')
        const isBait = rest.every((each) => BAIT.has(each) || endings.includes(each))
        const score = isBait ? 6 : 3
        return { of: guarded.domain, score, how: `is ${guarded.domain} with added words` }
      }
    }
    for (const word of baits(label)) {
      const guarded = this.#byLook.get(skeletonOf(word))
      if (guarded !== undefined) {
        const score = guarded.look.length >= 7 ? 6 : 3
        return { of: guarded.domain, score, how: `is ${guarded.domain} with an added word` }
      }
    }
    return null
  }

  #slipped(look: string): Likeness | null {
    for (const length of [look.length, look.length - 1, look.length + 1]) {
      for (const guarded of this.#byLength.get(length) ?? []) {
        if (guarded.look.length < 5 || !isOneApart(look, guarded.look)) continue
        // Five letters have honest neighbours: apple, apply.
        const score = guarded.look.length >= 7 ? 6 : 3
        return { of: guarded.domain, score, how: `is one letter apart from ${guarded.domain}` }
      }
    }
    return null
  }
}

/** Neighbours of a list, longest first, the whole of it left out. */
function runs(length: number): readonly (readonly [from: number, to: number])[] {
  const found: [number, number][] = []
  for (let size = Math.min(length - 1, 4); size >= 1; size--) {
    for (let from = 0; from + size <= length && from < 8; from++) found.push([from, from + size])
  }
  return found
}

/** The label without a word of BAIT at its beginning or end. */
function baits(label: string): readonly string[] {
  const rests: string[] = []
  for (let at = 2; at <= label.length - LABEL_CHARS_MIN; at++) {
    if (BAIT.has(label.slice(0, at))) rests.push(label.slice(at))
    if (BAIT.has(label.slice(-at))) rests.push(label.slice(0, -at))
  }
  return rests
}

function partsOf(domain: string): { label: string; suffix: string; below: string } {
  const owned = domainOf(domain)
  const dot = owned.indexOf('.')
  return {
    label: dot < 0 ? owned : owned.slice(0, dot),
    suffix: dot < 0 ? '' : owned.slice(dot + 1),
    below: domain.length > owned.length ? domain.slice(0, -owned.length - 1) : '',
  }
}

/** As a reader shows it. */
function readable(label: string): string {
  return label.startsWith('xn--') ? domainToUnicode(label) || label : label
}
