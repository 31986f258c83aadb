/** Scanners behind ICAP: `RESPMOD` of RFC 3507, the message as the body of an answer. */
import { formatEndpoint } from '../../../base/endpoint.ts'
import { plainLine } from '../../../message/header.ts'
import { type Ask, VIRUS_SCORE, virusRule } from './contract.ts'
import { piecesOf, talk } from './talk.ts'

/** In which scanners name what they found; the draft of the ICAP extensions names the first two. */
const NAMES =
  /^(?:X-Infection-Found|X-Virus-ID|X-Virus-Name|X-Violations-Found|X-Blocked):[ \t]*(.*)$/im
const REQUEST = 'GET http://postern.invalid/message.eml HTTP/1.1\r\nHost: postern.invalid\r\n\r\n'
const RESPONSE =
  'HTTP/1.1 200 OK\r\nContent-Type: message/rfc822\r\nTransfer-Encoding: chunked\r\n\r\n'

export const askIcap: Ask = async (line, { body, timeoutMs }, clock) => {
  const endpoint = formatEndpoint(line.host, line.port)
  const head = [
    `RESPMOD icap://${endpoint}/${line.path} ICAP/1.0`,
    `Host: ${endpoint}`,
    'Allow: 204',
    'Connection: close',
    `Encapsulated: req-hdr=0, res-hdr=${REQUEST.length}, res-body=${REQUEST.length + RESPONSE.length}`,
    '',
    '',
  ].join('\r\n')
  const { bytes, isSent } = await talk(
    {
      ...line,
      timeoutMs,
      pieces: chunked(Buffer.from(head + REQUEST + RESPONSE), piecesOf(body)),
      // Its header says all that we want to know.
      isWhole: (answer) => answer.includes('\r\n\r\n'),
    },
    clock,
  )
  const answer = bytes.toString('latin1')
  const status = Number(/^ICAP\/1\.[01] (\d{3})/.exec(answer)?.[1] ?? 0)
  const name = NAMES.exec(answer.slice(0, answer.indexOf('\r\n\r\n')))?.[1]
  if (name !== undefined) {
    // `Type=0; Resolution=2; Threat=Eicar-Signature;`
    const threat = /Threat=([^;]+)/i.exec(name)?.[1] ?? name
    return [
      {
        rule: virusRule(line),
        score: VIRUS_SCORE,
        evidence: `${line.name} knows this as ${plainLine(threat, 100)}.`,
      },
    ]
  }
  if (status === 204 && isSent) return []
  if (status === 204) throw new Error('it answered before it had the mail')
  // It would hand out something else, and does not say why: that is not clean.
  throw new Error(`it answered ${status === 0 ? 'what is no ICAP' : status}`)
}

async function* chunked(
  head: Uint8Array,
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield head
  for await (const piece of pieces) {
    yield Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, CRLF])
  }
  yield Buffer.from('0\r\n\r\n')
}

const CRLF = Buffer.from('\r\n')
