/**
 * Words without which a pattern cannot match: they are looked for first, because finding a word
 * costs a hundredth of running a pattern. Understands a part of the RE2 syntax; of all else it
 * says that it knows no word.
 */

/** One of these must stand in the folded text; null: nobody knows a word. */
export type Needed = readonly string[] | null

const ALTERNATIVES_MAX = 64
const LENGTH_MIN = 3

/** How words are compared: lower case, and the long s is an s, as patterns have it. */
export function folded(text: string): string {
  return text.toLowerCase().replaceAll('ſ', 's')
}

export function neededBy(pattern: string): Needed {
  const reader = new Reader(pattern.replace(/^\(\?[a-z-]*\)/, ''))
  const needed = reader.alternatives()
  if (needed === null || reader.isLost || !reader.isAtEnd) return null
  return needed.every((word) => word.length >= LENGTH_MIN) ? needed : null
}

class Reader {
  readonly #text: string
  #at = 0
  #depth = 0
  /** Something was not understood: what was read before it counts for nothing. */
  isLost = false

  constructor(text: string) {
    this.#text = text
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#text.length
  }

  /** Of each alternative its best words; null when one has none. */
  alternatives(): Needed {
    const all: string[] = []
    let isKnown = true
    for (;;) {
      const words = this.#sequence()
      if (words === null) isKnown = false
      else all.push(...words)
      if (this.#text[this.#at] !== '|') break
      this.#at += 1
    }
    return isKnown && all.length <= ALTERNATIVES_MAX ? all : null
  }

  /** The best words of a row of parts, up to `|`, `)` or the end. */
  #sequence(): Needed {
    let best: Needed = null
    let run = ''
    const take = (words: Needed): void => {
      if (words === null || words.length === 0) return
      if (best === null || shortest(words) > shortest(best)) best = words
    }
    const endRun = (): void => {
      if (run !== '') take([run])
      run = ''
    }
    for (;;) {
      const sign = this.#text[this.#at]
      if (sign === undefined || sign === '|' || sign === ')') break
      const literal = this.#literal()
      if (literal !== null) {
        const times = this.#times()
        if (times === 'one') run += literal
        else {
          if (times === 'many') run += literal
          endRun()
        }
        continue
      }
      endRun()
      const words = this.#part()
      if (this.#times() !== 'none') take(words)
    }
    endRun()
    return best
  }

  /** One character that stands for itself, in lower case. */
  #literal(): string | null {
    const sign = this.#text[this.#at] ?? ''
    if (sign === '\\') {
      const next = this.#text[this.#at + 1] ?? ''
      if (!/[^A-Za-z0-9]/.test(next)) return null
      this.#at += 2
      return folded(next)
    }
    if ('.[](){}*+?^$|'.includes(sign)) return null
    this.#at += 1
    return folded(sign)
  }

  /** A group, a class, or a sign: its words when it has any. */
  #part(): Needed {
    const sign = this.#text[this.#at]
    if (sign === '(') {
      const open = /^\((?:\?(?:[a-z-]*:|P?<\w+>))?/.exec(this.#text.slice(this.#at))?.[0] ?? '('
      this.#at += open.length
      this.#depth += 1
      // `(?i)` inside a pattern, and what is nested too deep: nothing is known.
      if (this.#text[this.#at] === '?' || this.#depth > 20) return this.#giveUp()
      const words = this.alternatives()
      this.#depth -= 1
      if (this.#text[this.#at] !== ')') return this.#giveUp()
      this.#at += 1
      return words
    }
    if (sign === '[') {
      const end = /^\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]/.exec(this.#text.slice(this.#at))?.[0]
      if (end === undefined) return this.#giveUp()
      this.#at += end.length
      return null
    }
    if (sign === '\\') {
      const end = /^\\(?:[bBdDsSwWAz]|[pP](?:\w|\{[^}]*\}))/.exec(this.#text.slice(this.#at))?.[0]
      if (end === undefined) return this.#giveUp()
      this.#at += end.length
      return null
    }
    this.#at += 1
    return null
  }

  /** How often the part before may stand: `none` of it is needed, `one`, or at least one. */
  #times(): 'none' | 'one' | 'many' {
    const times = /^(?:[*+?]|\{\d+(?:,\d*)?\})[?]?/.exec(this.#text.slice(this.#at))?.[0]
    if (times === undefined) return 'one'
    this.#at += times.length
    return /^(?:[*?]|\{0)/.test(times) ? 'none' : 'many'
  }

  #giveUp(): null {
    this.#at = this.#text.length
    this.isLost = true
    return null
  }
}

function shortest(words: readonly string[]): number {
  return Math.min(...words.map((word) => word.length))
}
