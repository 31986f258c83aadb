/** smtp-server as a target of the dialogues: an independent receiver that shows they can be met. */
import { SMTPServer } from 'smtp-server'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { type Arrival, dirtOf, sha256 } from '../process/sink.ts'
import type { Target } from './play.ts'

const clock = new SystemClock()
const OURS = ['example.com']

/** A receiver of `example.com` in this process, and how to end it. */
export async function startOracle(): Promise<Target & { stop(): void }> {
  const arrivals: Arrival[] = []
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['AUTH'],
    size: 52_428_800,
    closeTimeout: 1_000,
    onRcptTo(address, _session, done) {
      const domain = address.address.slice(address.address.lastIndexOf('@') + 1).toLowerCase()
      if (OURS.includes(domain)) return done()
      return done(Object.assign(new Error('not ours'), { responseCode: 550 }))
    },
    onData(stream, session, done) {
      const pieces: Buffer[] = []
      stream.on('data', (piece: Buffer) => pieces.push(piece))
      stream.on('end', () => {
        const body = Buffer.concat(pieces)
        const { mailFrom, rcptTo } = session.envelope
        arrivals.push({
          sender: mailFrom === false ? '' : mailFrom.address,
          senderParameters: '',
          recipients: rcptTo.map(({ address }) => ({ address, parameters: '' })),
          wire: null,
          body,
          head: body.toString('latin1', 0, 16_384),
          sha256: sha256(body),
          sizeBytes: body.length,
          dirt: dirtOf(body).filter((kind) => kind !== 'dot'),
          askedMs: clock.monoMs(),
          dotMs: clock.monoMs(),
          repliedMs: null,
          reply: '',
        })
        done(null, 'kept')
      })
    },
  })
  server.on('error', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  const address = server.server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const mine = (token: string) =>
    arrivals.filter(
      ({ sender, recipients, head }) =>
        sender.includes(token) ||
        head.includes(token) ||
        recipients.some((one) => one.address.includes(token)),
    )
  return {
    port: address.port,
    codesOnly: true,
    async arrivals(token, count, timeoutMs) {
      const deadline = clock.monoMs() + timeoutMs
      while (mine(token).length < count && clock.monoMs() < deadline) await pause(clock, 10)
      return mine(token)
    },
    held: () => Promise.resolve([]),
    release: () => Promise.resolve(),
    retry: () => Promise.resolve(),
    waiting: () => Promise.resolve([]),
    freezeInspectors() {},
    stop: () => server.close(),
  }
}
