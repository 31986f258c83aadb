/**
 * Phrases found by the words that begin them: one pass over the words of a text, and only the
 * phrases whose first word stands there are looked at (fourteen times the speed of a pattern
 * each).
 */

import { assert } from '../../base/errors.ts'

/**
 * A phrase as it is written down: words in lower case, `a|b` for either, `*` for any one word, `#`
 * for any number, `$`, `€`, `£` and `%` for themselves. `!` before it: it counts twice.
 */
export type Phrase = {
  readonly topic: number
  /** What a topic counts once. */
  readonly id: number
  readonly points: 1 | 2
  readonly words: readonly string[]
  /** The words as numbers; 0 for any. */
  readonly ids: readonly number[]
}

export type PhraseIndex = {
  /** By the first two words, as `pairOf` makes one number of them. */
  readonly phrases: ReadonlyMap<number, readonly Phrase[]>
  /** Numbers of the words that occur in phrases, from 1. */
  readonly ids: ReadonlyMap<string, number>
  /** One for each word by its number with which a phrase begins that has one word, or any second one. */
  readonly alone: Uint8Array
  /** One for each hash that a word of a phrase has: most words of a text are in no phrase. */
  readonly hashes: Uint8Array
}

/** Words of a text that are read; a mail of more repeats itself. */
const WORDS_MAX = 12_000

/** Index over the phrases of each topic, one a line. */
export function indexPhrases(topics: readonly string[]): PhraseIndex {
  const phrases = new Map<number, Phrase[]>()
  const ids = new Map<string, number>()
  const hashes = new Uint8Array(HASHES)
  const alone = new Uint8Array(WORD_IDS)
  let id = 0
  for (const [topic, lines] of topics.entries()) {
    for (const line of lines.split('\n')) {
      const written = line.trim()
      if (written === '') continue
      id += 1
      for (const words of spread(written.replace(/^!/, '').split(' '))) {
        const numbers = words.map((word) => numberOf(word, ids))
        for (const word of words) hashes[hashOf(word)] = 1
        const [first = 0, second = 0] = numbers
        if (second === 0) alone[first] = 1
        const points = written.startsWith('!') ? 2 : 1
        const phrase: Phrase = { topic, id, points, words, ids: numbers }
        const known = phrases.get(pairOf(first, second))
        if (known === undefined) phrases.set(pairOf(first, second), [phrase])
        else known.push(phrase)
      }
    }
  }
  return { phrases, ids, alone, hashes }
}

const WORD_IDS = 0x10000

function numberOf(word: string, ids: Map<string, number>): number {
  if (word === '*') return 0
  const known = ids.get(word)
  if (known !== undefined) return known
  assert(ids.size + 1 < WORD_IDS, 'too many words in phrases')
  ids.set(word, ids.size + 1)
  return ids.size
}

function pairOf(first: number, second: number): number {
  return first * WORD_IDS + second
}

const HASHES = 0x10000

function hashOf(word: string): number {
  let hash = 0
  for (let at = 0; at < word.length; at += 1) hash = hashed(hash, word.charCodeAt(at))
  return hash
}

function hashed(hash: number, code: number): number {
  return (hash * 31 + code) & (HASHES - 1)
}

/** Every way to choose one of `a|b`. */
function spread(words: readonly string[]): readonly (readonly string[])[] {
  let ways: (readonly string[])[] = [[]]
  for (const word of words) {
    ways = word.split('|').flatMap((each) => ways.map((way) => [...way, each]))
  }
  return ways
}

/**
 * The words of a text in lower case: letters with apostrophes inside, `#` for numbers, signs of
 * money and percent by themselves; accents stay. As numbers: a word that is in no phrase is -1.
 */
export function wordsOf(text: string, { ids, hashes }: PhraseIndex): readonly number[] {
  const lower = text.toLowerCase()
  const words: number[] = []
  const number = ids.get('#') ?? -1
  let from = -1
  let digits = true
  let hash = 0
  const end = lower.length
  for (let at = 0; at <= end; at += 1) {
    const code = at === end ? 32 : lower.charCodeAt(at)
    const digit = code >= 48 && code <= 57
    if (digit || (code >= 97 && code <= 122) || isLetter(code)) {
      if (from === -1) {
        from = at
        digits = true
        hash = 0
      }
      digits &&= digit
      hash = hashed(hash, code)
      continue
    }
    if (from !== -1) {
      // `don't` is one word, `1,000.50` one number.
      if (at + 1 < end && joins(code, digits, lower.charCodeAt(at + 1))) {
        hash = hashed(hash, code)
        continue
      }
      words.push(digits ? number : hashes[hash] === 1 ? (ids.get(lower.slice(from, at)) ?? -1) : -1)
      from = -1
      if (words.length >= WORDS_MAX) return words
    }
    if (code === 36 || code === 37 || code === 0x20ac || code === 0xa3) {
      words.push(ids.get(String.fromCharCode(code)) ?? -1)
    }
  }
  return words
}

/** Letters beyond ASCII; the blocks of signs and of wide punctuation are left out. */
function isLetter(code: number): boolean {
  if (code < 0xc0) return code === 0xaa || code === 0xb5 || code === 0xba
  if (code === 0xd7 || code === 0xf7) return false
  return code < 0x2000 || (code >= 0x3040 && code < 0xfe30) || (code >= 0xff10 && code < 0xfff0)
}

function joins(code: number, digits: boolean, next: number): boolean {
  if (digits) return (code === 44 || code === 46) && next >= 48 && next <= 57
  return (code === 39 || code === 0x2019) && next >= 97 && next <= 122
}

/** Phrases of each topic that stand in `words`, a phrase once, in the order of the text. */
export function phrasesIn(
  words: readonly number[],
  { phrases, alone }: PhraseIndex,
): ReadonlyMap<number, readonly Phrase[]> {
  const found = new Map<number, Phrase[]>()
  const seen = new Set<number>()
  const look = (candidates: readonly Phrase[] | undefined, at: number): void => {
    if (candidates === undefined) return
    for (const phrase of candidates) {
      if (seen.has(phrase.id) || !standsAt(words, at, phrase.ids)) continue
      seen.add(phrase.id)
      const known = found.get(phrase.topic)
      if (known === undefined) found.set(phrase.topic, [phrase])
      else known.push(phrase)
    }
  }
  for (let at = 0; at < words.length; at += 1) {
    const first = words[at] as number
    if (first === -1) continue
    const second = words[at + 1] ?? -1
    if (second !== -1) look(phrases.get(pairOf(first, second)), at)
    if (alone[first] === 1) look(phrases.get(pairOf(first, 0)), at)
  }
  return found
}

function standsAt(words: readonly number[], at: number, phrase: readonly number[]): boolean {
  for (let index = 1; index < phrase.length; index += 1) {
    const word = phrase[index]
    if (word !== 0 && word !== words[at + index]) return false
  }
  return true
}
