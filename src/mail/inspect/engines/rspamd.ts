/** Rspamd over HTTP: `POST /checkv2` of its protocol. */
import { formatEndpoint } from '../../../base/endpoint.ts'
import type { Envelope } from '../../../message/envelope.ts'
import { plainLine } from '../../../message/header.ts'
import type { Ask } from './contract.ts'
import { scored } from './spamd.ts'
import { piecesOf } from './talk.ts'

/** What its own threshold for refusing is worth here: refused, with others. */
const AT_THRESHOLD = 15
const ANSWER_BYTES_MAX = 4 * 1024 * 1024

export const askRspamd: Ask = async (line, { body, envelope, timeoutMs }, clock) => {
  const over = new AbortController()
  const timer = clock.after(timeoutMs, () => over.abort(new Error(`no answer in ${timeoutMs} ms`)))
  try {
    const bytes = body.kind === 'memory' ? body.bytes : await whole(piecesOf(body))
    const response = await fetch(`http://${formatEndpoint(line.host, line.port)}/checkv2`, {
      method: 'POST',
      body: new Uint8Array(bytes),
      headers: headersOf(envelope),
      redirect: 'error',
      signal: over.signal,
    })
    if (!response.ok) throw new Error(`it answered ${response.status}`)
    const text = await response.text()
    if (text.length > ANSWER_BYTES_MAX) throw new Error('its answer is too long')
    return [readAnswer(line.name, JSON.parse(text))]
  } finally {
    timer.cancel()
  }
}

function headersOf(envelope: Envelope): Headers {
  const headers = new Headers()
  const tell = (name: string, value: string): void => {
    // A header of HTTP cannot hold all that SMTP can; without it the scan goes on.
    if (/^[\x20-\x7e]+$/.test(value)) headers.append(name, value)
  }
  tell('IP', envelope.clientIp)
  tell('Helo', envelope.greeting)
  tell('From', envelope.sender)
  for (const { address } of envelope.recipients.slice(0, 50)) tell('Rcpt', address)
  return headers
}

function readAnswer(name: string, answer: unknown): ReturnType<typeof scored> {
  const { score, required_score, symbols, is_skipped, action } = (answer ?? {}) as Readonly<
    Record<string, unknown>
  >
  // It skips what its test text decides, too; only a skip without a verdict says nothing.
  if (is_skipped === true && action === 'no action') throw new Error('it skipped the mail')
  if (typeof score !== 'number' || typeof required_score !== 'number' || required_score <= 0)
    throw new Error('it answered without a score')
  const named = Object.entries((symbols ?? {}) as Readonly<Record<string, { score?: unknown }>>)
    .map(
      ([symbol, { score: weight }]) => [symbol, typeof weight === 'number' ? weight : 0] as const,
    )
    .filter(([, weight]) => weight !== 0)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]) || (a[0] < b[0] ? -1 : 1))
    .slice(0, 10)
    .map(([symbol, weight]) => `${plainLine(symbol, 60)} ${weight}`)
  // What it would refuse whatever the sum counts as its threshold.
  const sum = action === 'reject' ? Math.max(score, required_score) : score
  const weight = (sum / required_score) * AT_THRESHOLD
  return scored(name, weight, `${score} of ${required_score}`, named.join(', '))
}

async function whole(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all)
}
