/** The decoder of DATA against a slow reference, over every way to cut the stream into chunks. */
import { expect, test } from 'bun:test'
import { SeededRandom } from '../../src/base/random.ts'
import { DataDecoder, type Newlines } from '../../src/mail/accept/data.ts'
import { SEED } from '../process/counts.ts'
import { unstuff } from '../process/sink.ts'

const ROUNDS = 40_000
/** Small, so that most streams fill several. */
const PIECE_BYTES = 64
/** What framing is made of, and some text long enough for quick paths. */
const WORDS = [
  '\r\n',
  '\r\n',
  '\r\n.',
  '.',
  '..',
  '\r',
  '\n',
  '\0',
  'a',
  'bc',
  '\xe9',
  'plain words in a row ',
  '0123456789abcdef'.repeat(6),
]

type Decoded = {
  readonly used: number
  readonly content: string
  readonly isMalformed: boolean
  readonly sizeBytes: number
}

/** By the letter: only CRLF.CRLF ends the data, only a dot after CRLF is stuffing. */
function reference(stream: Buffer, newlines: Newlines): Decoded | null {
  const at = Buffer.concat([Buffer.from('\r\n'), stream]).indexOf('\r\n.\r\n')
  if (at < 0) return null
  const raw = unstuff(stream.subarray(0, at)).toString('latin1')
  const isMalformed = /\0|\r(?!\n)|(?<!\r)\n/.test(raw)
  // A NUL goes; a CR or LF that it kept apart from its partner was bare, and is a line end.
  const repaired = raw.replace(/\r\n|\r|\n|\0/g, (octets) => (octets === '\0' ? '' : '\r\n'))
  return {
    used: at + 3,
    content: repaired,
    isMalformed: newlines === 'refuse' && isMalformed,
    sizeBytes: repaired.length,
  }
}

function decode(chunks: readonly Buffer[], newlines: Newlines): Decoded | null {
  const pieces: string[] = []
  const decoder = new DataDecoder({
    newlines,
    sizeMax: 1_000_000,
    pieceBytes: PIECE_BYTES,
    block: () => Buffer.alloc(PIECE_BYTES, 'x'),
    onPiece: (piece) => pieces.push(Buffer.from(piece).toString('latin1')),
  })
  let before = 0
  for (const chunk of chunks) {
    const used = decoder.push(chunk)
    if (used >= 0) {
      const content = pieces.join('') + Buffer.from(decoder.end()).toString('latin1')
      const { isMalformed, sizeBytes } = decoder
      return { used: before + used, content, isMalformed, sizeBytes }
    }
    before += chunk.length
  }
  return null
}

function randomStream(random: SeededRandom): Buffer {
  let text = ''
  for (let n = random.below(24); n > 0; n -= 1) text += WORDS[random.below(WORDS.length)] ?? ''
  // Most streams end somewhere; some have more behind the end, some never end.
  if (random.below(8) > 0) text += '\r\n.\r\n'
  if (random.below(3) === 0) text += 'MAIL FROM:<a@b>\r\n'
  return Buffer.from(text, 'latin1')
}

/** Chunks at random places, each at a random alignment of its buffer. */
function cutUp(stream: Buffer, random: SeededRandom): Buffer[] {
  const chunks: Buffer[] = []
  for (let at = 0; at < stream.length; ) {
    const size = 1 + random.below(random.below(4) === 0 ? 3 : stream.length)
    const shift = random.below(8)
    const room = Buffer.alloc(shift + size + 8, '.')
    const length = stream.copy(room, shift, at, at + size)
    chunks.push(room.subarray(shift, shift + length))
    at += size
  }
  return chunks
}

for (const newlines of ['refuse', 'repair'] as const) {
  test(`${ROUNDS} streams decode as the reference says, ${newlines}, seed ${SEED}`, () => {
    const random = new SeededRandom(SEED)
    let ended = 0
    for (let n = 0; n < ROUNDS; n += 1) {
      const stream = randomStream(random)
      const expected = reference(stream, newlines)
      const got = decode(cutUp(stream, random), newlines)
      if (expected !== null) ended += 1
      // What a malformed message would have been is nobody's business: it is refused.
      const seen =
        got?.isMalformed === true && expected !== null
          ? { ...got, content: expected.content, sizeBytes: expected.sizeBytes }
          : got
      if (!Bun.deepEquals(seen, expected)) {
        expect({ stream: stream.toString('latin1'), ...seen }).toEqual({
          stream: stream.toString('latin1'),
          ...expected,
        } as never)
      }
    }
    expect(ended).toBeGreaterThan(ROUNDS / 2)
  })
}

test('every cut into two of a stream with all the traps gives the same', () => {
  const stream = Buffer.from(
    '..a\r\n.\r\r\n.b\r\n..\r\n\r\n\n.\r\nplain text that is long\r\n.\nx\r\n.\r\nQUIT\r\n',
    'latin1',
  )
  const whole = decode([stream], 'repair')
  expect(whole?.used).toBe(stream.length - 'QUIT\r\n'.length)
  for (let at = 0; at <= stream.length; at += 1) {
    expect(decode([stream.subarray(0, at), stream.subarray(at)], 'repair')).toEqual(whole)
  }
})
