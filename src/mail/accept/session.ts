/**
 * One SMTP session (RFC 5321 section 3 and 4): commands in, replies out. It knows no socket: the
 * listener feeds it octets and does what it asks.
 */
import { messageOf } from '../../base/errors.ts'
import type { MessageId } from '../../base/ids.ts'
import { COMMAND_BYTES_MAX, PIECE_BYTES, PIPELINE_BYTES_MAX } from '../../base/limits.ts'
import { giveBack } from '../../base/memory.ts'
import type { Snapshot } from '../../config/snapshot.ts'
import type { Envelope, Recipient } from '../../message/envelope.ts'
import { formatReply, type Reply, reply } from '../../message/reply.ts'
import type { Finding } from '../../message/verdict.ts'
import { type MailArguments, readCommandLine, readMail, readRcpt } from './commands.ts'
import type { Line, SessionDeps } from './contract.ts'
import { DataDecoder, type Newlines } from './data.ts'
import type { Incoming } from './receive.ts'
import { checkRecipient, mustExist, NO_SUCH_USER } from './recipients.ts'
import { NOTHING_ASKED } from './visitor.ts'

type Transaction = {
  readonly snapshot: Snapshot
  readonly mail: MailArguments
  readonly recipients: Recipient[]
}

/** A message between 354 and its last dot. */
type Reception = {
  readonly decoder: DataDecoder
  readonly incoming: Incoming
  readonly id: MessageId
}

const NEWLINE = 10
const BAD_SEQUENCE = reply(503, '5.5.1', 'Bad sequence of commands')
/** To a network that asked for too many recipients that nobody has. */
export const BANNED = reply(421, '4.7.1', 'Too many unknown recipients from your network')
const NOT_IMPLEMENTED = reply(502, '5.5.1', 'Command not implemented')
const TOO_MANY_MESSAGES = reply(450, '4.7.1', 'Too many messages from your network, try later')
const UNKNOWN = reply(500, '5.5.2', 'Unknown command')
/** Asked by another node of the cluster that finds this one silent (design: mail.md). */
const WITNESS_VERB = 'XPOSTERN'
const TRY_LATER = reply(451, '4.3.0', 'Local error, try again later')
const SYNC_ERROR = reply(554, '5.5.0', 'SMTP synchronisation error')
/** Verbs of other protocols: a browser tricked into talking to us (faults.md C24). */
const FOREIGN = /^(?:GET|POST|PUT|HEAD|DELETE|OPTIONS|CONNECT|PATCH|TRACE|PROXY)\b|^[A-Za-z-]+:/

export class Session {
  readonly #deps: SessionDeps
  readonly #line: Line
  readonly #ip: string
  #input: Buffer = Buffer.alloc(0)
  #greeting: string | null = null
  #isExtended = false
  #tls: string | null = null
  #transaction: Transaction | null = null
  #data: Reception | null = null
  #dataStartMono = 0
  /** A reply to the final dot, or to a recipient, is on its way: input waits. */
  #isBusy = false
  #isOver = false
  /** The greeting is out: before it nothing is read. */
  #isOpen = false
  #errors = 0
  #messages = 0
  #commands = 0
  #activeMono: number
  #out = ''
  /** As far as it was waited for. */
  #client = NOTHING_ASKED

  constructor(ip: string, line: Line, deps: SessionDeps) {
    this.#ip = ip
    this.#line = line
    this.#deps = deps
    this.#activeMono = deps.clock.monoMs()
  }

  /** Monotonic ms of the last input or output. */
  get activeMono(): number {
    return this.#activeMono
  }

  /** The greeting; input that came before it is the mark of a spam bot (faults.md A22). */
  open(): void {
    if (this.#isOver) return
    if (this.#input.length > 0) return this.#over(SYNC_ERROR, 'early')
    this.#isOpen = true
    this.#say(`220 ${this.#deps.hostname} ESMTP Postern\r\n`)
    this.#flush()
  }

  /** Refuses the whole session before its greeting. */
  refuse(refusal: Reply, why: string): void {
    this.#over(refusal, why)
  }

  /** After the handshake all that was said before is forgotten (RFC 3207 section 4.2). */
  secured(tls: string): void {
    this.#tls = tls
    this.#greeting = null
    this.#transaction = null
    this.#input = Buffer.alloc(0)
  }

  get isOver(): boolean {
    return this.#isOver
  }

  receive(chunk: Buffer): void {
    if (this.#isOver) return
    this.#activeMono = this.#deps.clock.monoMs()
    if (this.#data !== null && !this.#isBusy && this.#input.length === 0) {
      this.#receiveData(chunk)
      // All of it was copied.
      giveBack(chunk)
      this.#flush()
      return
    }
    this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk])
    if ((this.#isBusy || !this.#isOpen) && this.#input.length > PIPELINE_BYTES_MAX)
      this.#line.pause()
    if (!this.#isOpen) return
    this.#run()
    this.#flush()
  }

  /** The client is gone. */
  closed(): void {
    this.#isOver = true
    // A message whose dot was received is decided all the same; the client will not know.
    if (!this.#isBusy) this.#data?.incoming.abort()
    this.#data = null
  }

  /** Called now and then: ends a session that is silent, or a message that takes for ever. */
  tick(): void {
    if (this.#isOver || this.#isBusy) return
    const { settings } = this.#deps.snapshot()
    const nowMono = this.#deps.clock.monoMs()
    if (nowMono - this.#activeMono > settings['limits.idle'] * 1_000) {
      this.#over(reply(421, '4.4.2', 'Idle for too long'), 'idle')
    } else if (
      this.#data !== null &&
      nowMono - this.#dataStartMono > settings['limits.dataTime'] * 1_000
    ) {
      this.#over(reply(421, '4.4.2', 'The message took too long'), 'slow')
    }
  }

  /** Ends the session between commands, as at a shutdown. */
  finish(): void {
    if (this.#isOver || this.#isBusy) return
    this.#over(reply(421, '4.3.2', 'Shutting down, try again later'), 'shutdown')
  }

  /** Ends the session between messages: one that has begun is taken to its end. */
  finishIdle(): void {
    const closed = this.#deps.closed()
    if (closed === null || this.#isOver || this.#isBusy || this.#transaction !== null) return
    this.#over(closed, 'drained')
  }

  get isBusy(): boolean {
    return this.#isBusy
  }

  #say(text: string): void {
    this.#out += text
  }

  #reply(answer: Reply): void {
    this.#out += `${formatReply(answer)}\r\n`
  }

  #flush(): void {
    if (this.#out === '' || this.#isOver) return
    const text = this.#out
    this.#out = ''
    this.#line.write(text)
  }

  #over(refusal: Reply, why: string): void {
    if (this.#isOver) return
    this.#deps.observer.emit('smtp.refused', { why, client: this.#ip, reply: formatReply(refusal) })
    this.#data?.incoming.abort()
    this.#data = null
    this.#isOver = true
    this.#line.end(`${this.#out}${formatReply(refusal)}\r\n`)
    this.#out = ''
  }

  /** An error of the client; too many end the session (faults.md G04). */
  #error(answer: Reply): void {
    this.#errors += 1
    if (this.#errors >= this.#deps.snapshot().settings['limits.errors'] && !this.#isExempt()) {
      this.#reply(answer)
      this.#over(reply(421, '4.7.0', 'Too many errors'), 'errors')
    } else this.#reply(answer)
  }

  #isExempt(): boolean {
    return this.#deps.isExempt(this.#ip)
  }

  /** Commands and data in #input, in order, until it is empty or we must wait. */
  #run(): void {
    while (!this.#isOver && !this.#isBusy && this.#input.length > 0) {
      if (this.#data !== null) {
        const chunk = this.#input
        this.#input = Buffer.alloc(0)
        this.#receiveData(chunk)
        continue
      }
      const end = this.#input.indexOf(NEWLINE)
      if (end < 0 || end > COMMAND_BYTES_MAX) {
        if (this.#input.length > COMMAND_BYTES_MAX) {
          this.#over(reply(500, '5.5.2', 'Line too long'), 'syntax')
        }
        return
      }
      const bytes = this.#input.subarray(0, end + 1)
      this.#input = this.#input.subarray(end + 1)
      const command = readCommandLine(bytes)
      if (command === 'not UTF-8') {
        this.#error(reply(501, '5.5.2', 'Not valid UTF-8'))
        continue
      }
      if (command === null) {
        // Bare CR, bare LF or NUL: what follows may be anybody's idea of a line (faults.md A21).
        return this.#over(reply(500, '5.5.2', 'Lines end with CRLF'), 'syntax')
      }
      this.#command(command.text)
    }
  }

  #command(text: string): void {
    this.#commands += 1
    const space = text.indexOf(' ')
    const verb = (space < 0 ? text : text.slice(0, space)).toUpperCase()
    const rest = space < 0 ? '' : text.slice(space + 1)
    if (this.#commands > 1_000 && this.#commands > 1_000 * (this.#messages + 1)) {
      return this.#over(reply(421, '4.7.0', 'Too many commands'), 'commands')
    }
    // Who said HELO was never told of PIPELINING.
    if (this.#greeting !== null && !this.#isExtended && this.#input.length > 0) {
      return this.#over(SYNC_ERROR, 'sync')
    }
    switch (verb) {
      case 'EHLO':
      case 'HELO':
        return this.#hello(verb === 'EHLO', rest)
      case 'MAIL':
        return this.#mail(rest)
      case 'RCPT':
        return this.#rcpt(rest)
      case 'DATA':
        return this.#beginData(rest)
      case 'RSET':
        if (rest.trim() !== '') return this.#error(reply(501, '5.5.4', 'RSET takes no argument'))
        this.#transaction = null
        return this.#reply(reply(250, '2.0.0', 'Ok'))
      case 'NOOP':
        return this.#reply(reply(250, '2.0.0', 'Ok'))
      case 'VRFY':
        return this.#reply(reply(252, '2.5.2', 'Cannot verify, but will take mail for it'))
      case 'HELP':
        return this.#reply(reply(214, '2.0.0', 'See RFC 5321'))
      case 'QUIT':
        this.#isOver = true
        return this.#line.end(`${this.#out}221 2.0.0 Bye\r\n`)
      case 'STARTTLS':
        return this.#startTls(rest)
      case WITNESS_VERB:
        return this.#witness(rest)
      case 'EXPN':
      case 'AUTH':
      case 'BDAT':
      case 'XCLIENT':
      case 'XFORWARD':
      case 'ETRN':
      case 'TURN':
        return this.#error(NOT_IMPLEMENTED)
      default:
        if (FOREIGN.test(text)) return this.#over(reply(421, '4.7.0', 'This is SMTP'), 'foreign')
        return this.#error(UNKNOWN)
    }
  }

  /** Everybody but a peer reads what he would for any word that is none. */
  #witness(question: string): void {
    const said = this.#deps.witness?.(question) ?? null
    if (said === null) this.#error(UNKNOWN)
    else this.#reply(reply(250, '2.0.0', said))
  }

  #hello(isExtended: boolean, rest: string): void {
    const name = rest.trim()
    if (name === '' || name.length > 255) {
      return this.#error(reply(501, '5.5.4', `Syntax: ${isExtended ? 'EHLO' : 'HELO'} hostname`))
    }
    // RFC 2920 section 3.1: EHLO is the last of its group; the client cannot know PIPELINING yet.
    if (this.#input.length > 0) return this.#over(SYNC_ERROR, 'sync')
    this.#greeting = name
    this.#deps.greeted?.(name)
    this.#isExtended = isExtended
    this.#transaction = null
    if (!isExtended) return this.#say(`250 ${this.#deps.hostname}\r\n`)
    const size = this.#deps.snapshot().settings['mail.size']
    const offers = [
      'PIPELINING',
      `SIZE ${size}`,
      '8BITMIME',
      'SMTPUTF8',
      'DSN',
      'ENHANCEDSTATUSCODES',
    ]
    if (this.#deps.tlsOffered && this.#tls === null) offers.unshift('STARTTLS')
    const lines = [this.#deps.hostname, ...offers]
    this.#say(
      lines
        .map((line, index) => `250${index === lines.length - 1 ? ' ' : '-'}${line}\r\n`)
        .join(''),
    )
  }

  #startTls(rest: string): void {
    if (!this.#deps.tlsOffered) return this.#error(NOT_IMPLEMENTED)
    if (rest.trim() !== '') return this.#error(reply(501, '5.5.4', 'STARTTLS takes no argument'))
    if (this.#tls !== null || this.#greeting === null || this.#transaction !== null) {
      return this.#error(BAD_SEQUENCE)
    }
    // What was pipelined behind it was never encrypted: it is dropped (CVE-2011-0411).
    this.#input = Buffer.alloc(0)
    const before = this.#out
    this.#out = ''
    this.#line.startTls(`${before}220 2.0.0 Ready to start TLS\r\n`)
  }

  #mail(rest: string): void {
    if (this.#greeting === null || this.#transaction !== null) return this.#error(BAD_SEQUENCE)
    if (!/^from:/i.test(rest))
      return this.#error(reply(501, '5.5.4', 'Syntax: MAIL FROM:<address>'))
    const mail = readMail(rest.slice(5), this.#isExtended)
    if ('code' in mail) return this.#error(mail)
    const closed = this.#deps.closed()
    if (closed !== null) return this.#over(closed, 'drained')
    const snapshot = this.#deps.snapshot()
    const { settings } = snapshot
    if (mail.sizeBytes > settings['mail.size']) {
      return this.#error(reply(552, '5.3.4', `Larger than ${settings['mail.size']} octets`))
    }
    if (this.#messages >= settings['limits.messages'] && !this.#isExempt()) {
      return this.#over(reply(421, '4.7.0', 'Too many messages in this session'), 'messages')
    }
    if (this.#deps.isBanned?.(this.#ip) === true) return this.#over(BANNED, 'banned')
    const refusal = this.#deps.receiver.refusal(mail.sizeBytes)
    if (refusal !== null) return this.#reply(refusal)
    if (!this.#deps.begun(this.#ip)) {
      const why = formatReply(TOO_MANY_MESSAGES)
      this.#deps.observer.emit('smtp.refused', { why: 'rate', client: this.#ip, reply: why })
      return this.#reply(TOO_MANY_MESSAGES)
    }
    this.#transaction = { snapshot, mail, recipients: [] }
    this.#reply(reply(250, '2.1.0', 'Ok'))
  }

  #rcpt(rest: string): void {
    const transaction = this.#transaction
    if (transaction === null) return this.#error(BAD_SEQUENCE)
    if (!/^to:/i.test(rest)) return this.#error(reply(501, '5.5.4', 'Syntax: RCPT TO:<address>'))
    const { snapshot, mail, recipients } = transaction
    const rcpt = readRcpt(rest.slice(3), this.#isExtended, mail.smtpUtf8)
    if ('code' in rcpt) return this.#error(rcpt)
    if (recipients.length >= snapshot.settings['mail.recipients']) {
      return this.#reply(reply(452, '4.5.3', 'Too many recipients'))
    }
    if (!this.#deps.addressed(this.#ip)) {
      return this.#refuseRecipient(
        reply(452, '4.7.1', 'Too many recipients from your network, try later'),
        rest,
      )
    }
    const checked = checkRecipient(rcpt.recipient, snapshot, this.#deps.mayRelay(this.#ip))
    if ('code' in checked) return this.#refuseRecipient(checked, rcpt.recipient?.text ?? '')
    const { address } = checked
    this.#when(this.#deps.known?.() ?? NOTHING_ASKED, (client) => {
      this.#client = client
      if (client.refusal !== null && !mustExist(address)) {
        return this.#refuseRecipient(client.refusal, address, 'listed')
      }
      this.#when(this.#deps.exists?.(address, snapshot) ?? true, (exists) => {
        if (!exists) return this.#refuseRecipient(NO_SUCH_USER, address)
        this.#take(transaction, { address, notify: rcpt.notify, orcpt: rcpt.orcpt })
      })
    })
  }

  #take({ mail, recipients }: Transaction, recipient: Recipient): void {
    const { address } = recipient
    const sender = mail.sender?.text ?? ''
    const seconds = this.#deps.greylisted(this.#ip, sender, address, this.#client.name)
    if (seconds > 0) {
      const later = reply(
        451,
        '4.7.1',
        `Greylisted: try again in ${seconds} s, at any of our hosts`,
      )
      return this.#refuseRecipient(later, address, 'greylist')
    }
    recipients.push(recipient)
    this.#reply(reply(250, '2.1.5', 'Ok'))
  }

  /** At once, or when it is known: input waits meanwhile. Both promises end within their own time. */
  #when<Value>(value: Value | Promise<Value>, then: (value: Value) => void): void {
    if (!(value instanceof Promise)) return then(value)
    this.#isBusy = true
    value.then(
      (known) => this.#goOn(() => then(known)),
      (error) => {
        this.#deps.observer.emit('smtp.failed', { client: this.#ip, cause: messageOf(error) })
        this.#goOn(() => this.#over(TRY_LATER, 'failed'))
      },
    )
  }

  #goOn(then: () => void): void {
    this.#isBusy = false
    this.#activeMono = this.#deps.clock.monoMs()
    if (this.#isOver) return
    then()
    if (this.#isBusy) return
    this.#line.resume()
    this.#run()
    this.#flush()
  }

  #refuseRecipient(answer: Reply, recipient: string, because?: string): void {
    const isUnknown = answer.enhanced === '5.1.1'
    const usual = answer.code < 500 ? 'rate' : isUnknown ? 'recipient' : 'relay'
    this.#deps.observer.emit('smtp.refused', {
      why: because ?? usual,
      client: this.#ip,
      reply: formatReply(answer),
    })
    this.#deps.receiver.refused({
      id: this.#deps.ids.next(),
      atMs: this.#deps.clock.wallMs(),
      clientIp: this.#ip,
      sender: this.#transaction?.mail.sender?.text ?? '',
      recipient: recipient.slice(0, 320),
      sizeBytes: 0,
      accept: 'refused',
      acceptReply: formatReply(answer),
    })
    if (answer.code < 500) this.#reply(answer)
    else this.#error(answer)
    if (isUnknown && this.#deps.failed?.(this.#ip) === true) this.#over(BANNED, 'banned')
  }

  #beginData(rest: string): void {
    const transaction = this.#transaction
    if (transaction === null) return this.#error(BAD_SEQUENCE)
    if (rest.trim() !== '') return this.#error(reply(501, '5.5.4', 'DATA takes no argument'))
    if (transaction.recipients.length === 0) {
      return this.#error(reply(554, '5.5.1', 'No valid recipients'))
    }
    // DATA is the last of its group (RFC 2920): octets before our 354 are somebody's smuggling.
    if (this.#input.length > 0) return this.#over(SYNC_ERROR, 'sync')
    const id = this.#deps.ids.next()
    const incoming = this.#deps.receiver.begin(id, transaction.mail.sizeBytes)
    if ('code' in incoming) {
      this.#transaction = null
      return this.#reply(incoming)
    }
    const { settings } = transaction.snapshot
    this.#dataStartMono = this.#deps.clock.monoMs()
    const decoder = new DataDecoder({
      newlines: settings['mail.newlines'] as Newlines,
      sizeMax: settings['mail.size'],
      pieceBytes: PIECE_BYTES,
      block: () => incoming.block(),
      onPiece: (piece) => {
        if (incoming.piece(piece)) return
        this.#line.pause()
        incoming.onDrained(() => this.#line.resume())
      },
    })
    this.#data = { decoder, incoming, id }
    this.#say('354 End data with <CR><LF>.<CR><LF>\r\n')
  }

  #receiveData(chunk: Buffer): void {
    const data = this.#data
    if (data === null) return
    let used: number
    try {
      used = data.decoder.push(chunk)
    } catch (error) {
      this.#deps.observer.emit('smtp.failed', { client: this.#ip, cause: messageOf(error) })
      return this.#over(TRY_LATER, 'failed')
    }
    if (used < 0) return
    this.#input = used < chunk.length ? Buffer.from(chunk.subarray(used)) : Buffer.alloc(0)
    void this.#endData(data)
  }

  /** Never rejects. */
  async #endData(data: Reception): Promise<void> {
    const transaction = this.#transaction
    if (transaction === null) return
    this.#isBusy = true
    const { decoder, incoming, id } = data
    const envelope = this.#envelope(id, transaction)
    const answer = this.#refusalOfData(decoder)
    let final: Reply
    if (answer !== null) {
      incoming.abort()
      this.#refusedMessage(envelope, decoder.sizeBytes, answer)
      final = answer
    } else {
      try {
        final = await incoming.end({
          id,
          envelope,
          last: decoder.end(),
          isWhole: decoder.isWhole,
          sizeBytes: decoder.sizeBytes,
          snapshot: transaction.snapshot,
          findings: this.#findings(),
          clientName: this.#client.name,
          iprev: this.#client.iprev,
        })
      } catch (error) {
        this.#deps.observer.emit('smtp.failed', {
          message: id,
          client: this.#ip,
          cause: messageOf(error),
        })
        final = TRY_LATER
      }
    }
    if (final.code === 250) this.#deps.behaved(this.#ip)
    this.#messages += 1
    this.#transaction = null
    this.#data = null
    this.#isBusy = false
    this.#activeMono = this.#deps.clock.monoMs()
    if (this.#isOver) return
    this.#reply(final)
    this.#line.resume()
    this.#run()
    this.#flush()
  }

  /** Postmaster is reached by whoever is listed, and so that it is read, not held. */
  #findings(): readonly Finding[] {
    const { findings, refusal } = this.#client
    if (refusal === null) return findings
    return findings.map((finding) => ({ ...finding, score: Math.min(0, finding.score) }))
  }

  #refusalOfData(decoder: DataDecoder): Reply | null {
    if (decoder.isTooLarge) {
      const size = this.#transaction?.snapshot.settings['mail.size'] ?? 0
      return reply(552, '5.3.4', `Larger than ${size} octets`)
    }
    if (decoder.isMalformed) {
      return reply(550, '5.6.11', 'Message contains a bare CR, a bare LF or a NUL')
    }
    return null
  }

  #refusedMessage(envelope: Envelope, sizeBytes: number, answer: Reply): void {
    this.#deps.observer.emit('smtp.refused', {
      why: 'data',
      client: this.#ip,
      message: envelope.id,
      reply: formatReply(answer),
    })
    for (const { address } of envelope.recipients) {
      this.#deps.receiver.refused({
        id: envelope.id,
        atMs: envelope.receivedMs,
        clientIp: envelope.clientIp,
        sender: envelope.sender,
        recipient: address,
        sizeBytes,
        accept: 'refused',
        acceptReply: formatReply(answer),
      })
    }
  }

  #envelope(id: MessageId, { mail, recipients }: Transaction): Envelope {
    // RFC 3848, and RFC 6531 section 4.3 for the UTF8 forms.
    const secure = this.#tls === null ? '' : 'S'
    const base = mail.smtpUtf8 ? 'UTF8SMTP' : this.#isExtended ? 'ESMTP' : 'SMTP'
    return {
      id,
      receivedMs: this.#deps.clock.wallMs(),
      clientIp: this.#ip,
      greeting: this.#greeting ?? '',
      protocol: `${base}${base === 'SMTP' ? '' : secure}`,
      tls: this.#tls,
      outbound: this.#deps.mayRelay(this.#ip),
      sender: mail.sender?.text ?? '',
      eightBit: mail.eightBit,
      smtpUtf8: mail.smtpUtf8,
      ret: mail.ret,
      envid: mail.envid,
      recipients,
    }
  }
}
