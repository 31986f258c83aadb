/** Mail for a real node, as a client at its door sends it. */
import { Wire } from '../process/wire.ts'

/** The line of `serve` that holds the set-up address. */
export const CODE_LINE = /^https?:\/\/\S+\/setup\?code=\S+$/m

/** @throws WireError or an assertion of the caller when it is not accepted */
export async function sendMail(
  port: number,
  mail: { readonly to: string; readonly subject: string; readonly text: string },
): Promise<void> {
  const wire = await Wire.connect({ port })
  const say = async (line: string, code: number) => {
    wire.send(`${line}\r\n`)
    const reply = await wire.reply()
    if (reply.code !== code) throw new Error(`${line}: ${reply.lines.join(' ')}`)
  }
  await wire.reply()
  await say('EHLO client.example', 250)
  await say('MAIL FROM:<sender@client.example>', 250)
  await say(`RCPT TO:<${mail.to}>`, 250)
  await say('DATA', 354)
  const head = [
    'From: <sender@client.example>',
    `To: <${mail.to}>`,
    `Subject: ${mail.subject}`,
    'Date: Sun, 22 Nov 2026 03:00:00 +0000',
    `Message-ID: <${mail.subject.length}@client.example>`,
  ]
  await say(`${head.join('\r\n')}\r\n\r\n${mail.text}\r\n.`, 250)
  await say('QUIT', 221)
  wire.drop()
}
