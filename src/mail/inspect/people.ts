/** People whose names others use to be believed: is this display name one of theirs? */
import { type Person, parsePerson } from '../../config/lines.ts'
import { isOneApart, skeletonOf } from './skeleton.ts'

export type Match = {
  readonly person: Person
  /** `whole`: every word of the name. `near`: one letter apart, or by initials. */
  readonly how: 'whole' | 'near'
}

type Guarded = { readonly person: Person; readonly words: readonly string[] }

/** Titles and what programs add: no part of a name. */
const TITLES = new Set(
  'dr mr mrs ms mx prof sir dame herr frau ing dipl jr sr ceo cfo cto coo president director chairman'.split(
    ' ',
  ),
)
/** Words of a display name that are looked at. */
const WORDS_MAX = 12

export class People {
  /** By each word of the name, and by all of it without blanks, in both orders. */
  readonly #byWord = new Map<string, Guarded[]>()

  /** Lines of the setting `sender.people`. */
  constructor(lines: readonly string[]) {
    for (const line of lines) {
      const person = parsePerson(line)
      const words = wordsOf(person?.name ?? '')
      if (person === null || words.length === 0) continue
      for (const key of new Set([...words, words.join(''), words.toReversed().join('')])) {
        const same = this.#byWord.get(key)
        if (same === undefined) this.#byWord.set(key, [{ person, words }])
        else same.push({ person, words })
      }
    }
  }

  /** Somebody else's address under the name of a guarded person; null: nobody's name. */
  find(name: string, address: string): Match | null {
    if (this.#byWord.size === 0 || name === '') return null
    const words = wordsOf(name)
    let found: Match | null = null
    for (const key of new Set([...words, words.join('')])) {
      for (const { person, words: own } of this.#byWord.get(key) ?? []) {
        const how = likeness(words, own)
        if (how === null) continue
        // Two people of one name are both right.
        if (person.addresses.includes(address)) return null
        if (found === null || (found.how === 'near' && how === 'whole')) found = { person, how }
      }
    }
    return found
  }
}

/** How it looks, in words: `Ada (Finance) LOVELACE` is ada, finance, lovelace. */
function wordsOf(name: string): readonly string[] {
  const text = name.normalize('NFKC').replace(/\p{Default_Ignorable_Code_Point}/gu, '')
  // Letters that are spaced apart are read as one word.
  const joined = text.replace(/\b(?:\p{L}[ .]){3,}\p{L}\b/gu, (spaced) =>
    spaced.replace(/[ .]/g, ''),
  )
  return joined
    .split(/[^\p{L}\p{M}\p{N}|$@]+/u)
    .map(skeletonOf)
    .filter((word) => word !== '' && !TITLES.has(word))
    .slice(0, WORDS_MAX)
}

function likeness(words: readonly string[], own: readonly string[]): Match['how'] | null {
  const joined = words.join('')
  const only = own.length === 1
  // One word is a name only when nothing else stands there.
  if (only) return joined === own[0] ? 'whole' : null
  if (own.every((word) => words.includes(word)) || joined === own.join('')) return 'whole'
  if (joined === own.toReversed().join('')) return 'whole'
  const missing = own.filter((word) => !words.includes(word))
  const [word = ''] = missing
  if (missing.length !== 1) return null
  const others = words.filter((each) => !own.includes(each))
  if (word.length >= 4 && others.some((other) => isOneApart(other, word))) return 'near'
  return others.length === 1 && others[0] === word[0] && words.length === own.length ? 'near' : null
}
