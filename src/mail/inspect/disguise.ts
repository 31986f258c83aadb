/**
 * Words that look like a word and are written as another: `v1agra`, `p-a-y-p-a-l`, letters of two
 * alphabets, characters that nobody sees. An honest text has no use for any of them.
 */
import { plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import { mixesScripts } from './skeleton.ts'
import type { View } from './view.ts'

/** Words that are worth dressing up; none of them stands inside an honest word of digits. */
const WANTED: ReadonlySet<string> = new Set(
  `viagra cialis levitra xanax valium phentermine vicodin tramadol rolex replica casino mortgage refinance
penis porn hardcore lottery inheritance bitcoin password account verify paypal microsoft amazon netflix apple
office invoice payment suspended urgent security facebook google outlook pharmacy prescription enlargement
loan credit money million free income guaranteed winner investment wallet docusign`.split(/\s+/),
)

/** Digits and signs that stand for letters, in words only. */
const STANDS_FOR: Readonly<Record<string, string>> = {
  '0': 'o',
  '1': 'i',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '8': 'b',
  '@': 'a',
  $: 's',
  '!': 'i',
  '|': 'l',
}

/** Letters between signs: `v.i.a.g.r.a`, `F R E E`. Blanks only around capitals: `a b c` is a list. */
const SPACED =
  /(?<![a-z0-9])(?:[a-z][.\-_*~^'`,|/]{1,2}){3,20}[a-z](?![a-z0-9])|(?<![a-z0-9])(?:[a-z] ){4,20}[a-z](?![a-z0-9])/gi
const LEET = /[a-z]{1,12}[0134578@$!|][a-z0134578@$!|]{1,12}[a-z]/gi
/** Greek to Armenian, Cherokee: letters that pass for Latin ones. */
const FOREIGN = /[\u0370-\u058f\u13a0-\u13ff]/
const EXAMPLES_MAX = 5
/** Characters that are looked through for spaced and dressed words. */
const CHARS_MAX = 32 * 1024

export function disguises(view: View): readonly Finding[] {
  const findings: Finding[] = []
  const text = `${view.subject}\n${view.text}`.slice(0, CHARS_MAX)
  const dressed = new Set<string>()
  if (/[a-z][0134578@$!|][a-z]/i.test(text)) {
    for (const [word] of text.matchAll(LEET)) if (isDressed(word.toLowerCase())) dressed.add(word)
  }
  if (
    /[a-z][.\-_*~^'`,|/ ]{1,2}[a-z][.\-_*~^'`,|/ ]{1,2}[a-z][.\-_*~^'`,|/ ]{1,2}[a-z]/i.test(text)
  ) {
    for (const [word] of text.matchAll(SPACED)) {
      if (WANTED.has(word.replace(/[^a-z]/gi, '').toLowerCase())) dressed.add(word)
    }
  }
  if (dressed.size > 0) {
    findings.push({
      rule: 'TEXT_DISGUISED',
      score: dressed.size > 2 ? 3.5 : 2.5,
      evidence: `Words are dressed up to pass filters: ${shown(dressed)}.`,
    })
  }
  const mixed = new Set<string>()
  if (FOREIGN.test(text)) {
    for (const [word] of text.matchAll(/\p{L}{3,}/gu)) {
      if (mixed.size < 50 && mixesScripts(word)) mixed.add(word)
    }
  }
  if (mixed.size > 1) {
    findings.push({
      rule: 'TEXT_MIXED_SCRIPTS',
      score: mixed.size > 4 ? 4 : 2,
      evidence: `Words mix letters of two alphabets that look alike: ${shown(mixed)}.`,
    })
  }
  if (view.splits > 2) {
    findings.push({
      rule: 'TEXT_ZERO_WIDTH',
      score: view.splits > 10 ? 4 : 2,
      evidence: `Invisible characters split words in ${view.splits} places.`,
    })
  }
  return findings
}

function isDressed(word: string): boolean {
  let plain = ''
  for (const char of word) plain += STANDS_FOR[char] ?? char
  return WANTED.has(plain) || (word.includes('1') && WANTED.has(plain.replaceAll('i', 'l')))
}

function shown(words: ReadonlySet<string>): string {
  return [...words]
    .slice(0, EXAMPLES_MAX)
    .map((word) => `"${plainLine(word, 40)}"`)
    .join(', ')
}
