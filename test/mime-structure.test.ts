/** A structure that readers take differently hides nothing: E01 to E13 of the catalogue, each in both encodings. */
import { describe, expect, test } from 'bun:test'
import { STRUCTURES } from './mime-structures.ts'
import { cte, ENCODINGS, fate, file, mail } from './mime-world.ts'

/** Line ends that we take for none: the mail is held for them. */
const UNREADABLE = new Set(['\r\r', '\v\v', '\f\f'].map((gap) => JSON.stringify(gap)))

for (const [row, cases] of Object.entries(STRUCTURES)) {
  describe(row, () => {
    for (const [name, make] of cases) {
      for (const encoding of ENCODINGS) {
        const expected = UNREADABLE.has(name) ? 'held' : 'found'
        test(`${name}, ${encoding.name}: ${expected}`, () => {
          expect(fate(make(encoding))).toBe(expected)
        })
      }
    }
  })
}

test('a sound mail with the same parts is found, and its structure alone is not held', () => {
  for (const encoding of ENCODINGS) {
    expect(fate(mail({ fields: file(cte(encoding.name)), payload: encoding.payload }))).toBe(
      'found',
    )
    expect(
      fate(
        mail({
          fields: file(cte(encoding.name)),
          payload: encoding.name === 'base64' ? 'dGVzdA==' : 'test=3D',
        }),
      ),
    ).toBe('clean')
  }
})
