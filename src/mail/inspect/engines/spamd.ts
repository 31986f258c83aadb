/** SpamAssassin's daemon: `SYMBOLS` of its protocol 1.5 (spamd/PROTOCOL of its sources). */
import { bodySize } from '../../../message/body.ts'
import { plainLine } from '../../../message/header.ts'
import type { Ask } from './contract.ts'
import { piecesOf, talk } from './talk.ts'

/** What its own threshold is worth here: held. */
const AT_THRESHOLD = 8

export const askSpamd: Ask = async (line, { body, timeoutMs }, clock) => {
  const head = `SYMBOLS SPAMC/1.5\r\nContent-length: ${bodySize(body)}\r\n\r\n`
  const { bytes, isSent } = await talk(
    { ...line, timeoutMs, pieces: withHead(Buffer.from(head), piecesOf(body)) },
    clock,
  )
  const answer = bytes.toString('latin1')
  const [, code, said] = /^SPAMD\/[\d.]+ (\d+) ?([^\r\n]*)/.exec(answer) ?? []
  if (code !== '0')
    throw new Error(
      code === undefined ? 'it answered what is no SPAMD' : plainLine(said ?? '', 200),
    )
  const [, score, required] = /^Spam:[^;\r\n]*;\s*(-?[\d.]+)\s*\/\s*(-?[\d.]+)/im.exec(answer) ?? []
  if (!isSent || score === undefined || !(Number(required) > 0))
    throw new Error('it answered without a score')
  const weight = (Number(score) / Number(required)) * AT_THRESHOLD
  const symbols = plainLine(answer.slice(answer.indexOf('\r\n\r\n') + 4), 300)
  return [scored(line.name, weight, `${score} of ${required}`, symbols)]
}

async function* withHead(
  head: Uint8Array,
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield head
  yield* pieces
}

/** Another scanner's sum is one voice: it may hold, and refuse only together with others. */
export function scored(name: string, weight: number, sum: string, symbols: string) {
  const score = Math.round(Math.min(12, Math.max(-3, weight)) * 100) / 100
  return {
    rule: `${name.toUpperCase().replace(/-/g, '_')}_SCORE`,
    score,
    evidence: `${name} gives it ${sum}${symbols === '' ? '' : `: ${symbols}`}.`,
  }
}
