/** ClamAV's daemon, and who speaks like it: `INSTREAM` of clamd(8). */
import { plainLine } from '../../../message/header.ts'
import { type Ask, VIRUS_SCORE, virusRule } from './contract.ts'
import { piecesOf, talk } from './talk.ts'

const COMMAND = Buffer.from('zINSTREAM\0')
const END = Buffer.alloc(4)

export const askClamd: Ask = async (line, { body, timeoutMs }, clock) => {
  const { bytes, isSent } = await talk(
    {
      ...line,
      timeoutMs,
      pieces: framed(piecesOf(body)),
      isWhole: (answer) => answer.includes(0),
    },
    clock,
  )
  const text = plainLine(bytes.toString('latin1').replace(/\0.*$/s, ''), 200)
  const found = /^stream: (.+) FOUND$/.exec(text)?.[1]
  if (found !== undefined) {
    return [
      {
        rule: virusRule(line),
        score: VIRUS_SCORE,
        evidence: `${line.name} knows this as ${found}.`,
      },
    ]
  }
  // An answer before the end is about a part: it may find, but it cannot clear.
  if (text === 'stream: OK' && isSent) return []
  throw new Error(text === 'stream: OK' ? 'it answered before it had the mail' : text)
}

/** Each piece behind its length; a length of nothing ends it. */
async function* framed(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield COMMAND
  for await (const piece of pieces) {
    const frame = Buffer.allocUnsafe(4 + piece.length)
    frame.writeUInt32BE(piece.length, 0)
    frame.set(piece, 4)
    yield frame
  }
  yield END
}
