/** Dots and line ends on the way out: a law over all ways to cut a message into pieces. */
import { expect, test } from 'bun:test'
import { SeededRandom } from '../src/base/random.ts'
import { DotStuffer, wholeMessage } from '../src/mail/deliver/wire.ts'

/** What RFC 5321 section 4.5.2 says, line by line; null for what may not go out. */
function plainly(text: string): string | null {
  const lines = text.split('\r\n')
  if (lines.some((line) => /[\r\n\0]/.test(line))) return null
  const stuffed = lines.map((line) => (line.startsWith('.') ? `.${line}` : line)).join('\r\n')
  return stuffed === '' || stuffed.endsWith('\r\n') ? `${stuffed}.\r\n` : `${stuffed}\r\n.\r\n`
}

/** The message in pieces that end at each of `cuts`. */
function inPieces(text: string, cuts: readonly number[]): string | null {
  const stuffer = new DotStuffer()
  const edges = [0, ...cuts, text.length]
  try {
    const out = edges
      .slice(1)
      .map((end, at) =>
        stuffer.next(Buffer.from(text.slice(edges[at], end), 'latin1')).toString('latin1'),
      )
    return out.join('') + stuffer.end().toString('latin1')
  } catch {
    return null
  }
}

test('every text of dots and line ends goes out right or not at all, wherever it is cut', () => {
  const alphabet = ['.', '\r', '\n', '\r\n', 'x', '\0', '\xff']
  const random = new SeededRandom(5)
  let refused = 0
  for (let round = 0; round < 20_000; round++) {
    const common = random.below(2) === 0 ? ['.', '\r\n', 'x', '\r\n.', '..'] : alphabet
    const length = random.below(9)
    const text = Array.from({ length }, () => common[random.below(common.length)]).join('')
    const cuts = [random.below(text.length + 1), random.below(text.length + 1)].sort(
      (a, b) => a - b,
    )
    const expected = plainly(text)
    if (expected === null) refused += 1
    expect(inPieces(text, cuts)).toBe(expected)
  }
  expect(refused).toBeGreaterThan(1_000)
  expect(refused).toBeLessThan(19_000)
})

test('header lines of ours and the body are one text', () => {
  expect(wholeMessage('A: b\r\n', Buffer.from('.c\r\n')).toString()).toBe('A: b\r\n..c\r\n.\r\n')
  expect(() => wholeMessage('A: b\r', Buffer.from('\nc\r\n'))).not.toThrow()
  expect(() => wholeMessage('A: b\n', Buffer.from('c\r\n'))).toThrow('bare')
})
