/** The catalogue knows every rule that the sources name, each once, and says of it a whole sentence. */
import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CATALOGUE } from '../src/message/catalogue.ts'
import { ROOT } from './real.ts'

/** Where rules are made. */
const SOURCES = ['src/mail/inspect/**/*.ts', 'src/mail/accept/*.ts', 'src/mail/decide/*.ts']
/** Words of this form that are no rules: constants of formats, methods, error codes. */
const NO_RULES = /^(?:ERR_|E[A-Z]+$)/

/** Rules as the sources write them: in quotes, with an underscore. */
function named(): readonly string[] {
  const names = SOURCES.flatMap((pattern) =>
    [...new Bun.Glob(pattern).scanSync({ cwd: ROOT })].flatMap((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8')
      return [...text.matchAll(/'([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|GTUBE|EICAR)'/g)].map(
        ([, name = '']) => name,
      )
    }),
  )
  return [...new Set(names)].filter((name) => !NO_RULES.test(name)).sort()
}

test('every rule of the sources is in the catalogue', () => {
  const known = new Set(CATALOGUE.map(({ rule }) => rule))
  expect(named().length).toBeGreaterThan(150)
  expect(named().filter((name) => !known.has(name))).toEqual([])
})

test('each stands in it once, with a score in bounds and a sentence', () => {
  const rules = CATALOGUE.map(({ rule }) => rule)
  expect(new Set(rules).size).toBe(rules.length)
  for (const { rule, score, says } of CATALOGUE) {
    expect(rule).toMatch(/^[A-Z][A-Z0-9_]{1,63}$/)
    expect(Math.abs(score)).toBeLessThanOrEqual(20)
    expect(says).toMatch(/^[A-Z].{5,120}\.$/)
  }
})
