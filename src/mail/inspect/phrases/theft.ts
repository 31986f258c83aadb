/** Topics of thieves: money of strangers, accounts, parcels, threats. */
import type { Topic } from './topics.ts'

export const THEFT: readonly Topic[] = [
  {
    rule: 'TEXT_ADVANCE_FEE',
    about: 'money of strangers that is to be moved or inherited',
    steps: [
      [3, 2],
      [5, 4],
      [7, 5],
    ],
    phrases: `
      !next of kin
      !foreign partner|account
      transfer of|the this|the|said fund|funds|money|sum
      !late husband|father|client|king|president
      your utmost|urgent assistance|confidence|confidentiality|attention|sincerity
      !modalities
      !strictly|highly|utmost confidential
      !top secret
      !barrister
      !sum of $|€|£|us|usd
      !# million|m us|usd|united|dollars
      !million us|usd|united|american states|dollars|dollar
      !deposited|lodged with|in a|the security|finance|bank
      security company
      !dormant|unclaimed account|fund|funds|deposit|money
      !widow of|to
      !diplomatic courier|agent|immunity
      !ministry of petroleum|finance|mines|works
      !petroleum corporation
      !over invoiced|inflated
      !contract inspector|review
      !lagos nigeria
      !federal government|republic of nigeria
      !central bank of nigeria
      !son|daughter|wife of the|late late|general|president
      !abacha|mobutu|savimbi|kabila
      !compensation fund|payment of
      fund|funds beneficiary|release
      !inheritance fund|claim|funds
      of god|allah to|and help|distribute
      !charity organization|organizations|orphanage
      !cancer of|and|which the|has|doctor
      !foreign|offshore remittance
      !percent|% of the total|fund|money
      for your assistance
      !as the beneficiary
      !business proposal|proposition
      mutual benefit|trust
      my private|confidential|direct telephone|phone|fax|email
      !investment in your country
      come to you|your as|country a
      in your country
      !risk free transaction
      civil war
      got your contact|email|address
      i am|m mr|mrs|miss|dr|barrister|engr|prince
      bank|atm draft|card
      assist me|us in|to
      dear|my friend|dear|sir beloved|in|friend
      god bless
      !overseas|foreign bank account
      !your bank account number|details|information
      !claims|claim agent|department
      !nächster|nächste angehöriger|angehörige
      !millionen us|dollar|euro
      !verstorbenen kunden|mannes
      !proche parent
      !millions de|d dollars|euros
      !herederos|heredero legítimo|legal
      !millones de dólares|euros
      !milioni di dollari|euro
    `,
  },
  {
    rule: 'TEXT_LOTTERY',
    about: 'a prize that nobody played for',
    steps: [
      [2, 1],
      [4, 2.5],
      [6, 3.5],
    ],
    phrases: `
      !lottery winner|winners|international|promotion|promo|program|company|board|winning
      !winning numbers|number|notification|ticket|email
      !ticket number
      !won the|a sum|prize|total|lump
      !claim your|the prize|winnings|winning|reward
      !prize award|money|claim|claims
      claims agent|department|officer
      !lucky winner|winners|numbers|draw|number
      !ballot system
      fiduciary agent
      !reference number batch|#
      batch number
      !your gift card is|awaits
      congratulations you|your
      exclusive reward|rewards
      !sie haben gewonnen
      !ihr gewinn
      gewinnbenachrichtigung
      !vous avez gagné|été
      !gagnant de la loterie
      !ha ganado|sido
      lotería nacional|internacional
      !ha vinto
      hai vinto
    `,
  },
  {
    rule: 'TEXT_EXTORTION',
    about: 'a threat that asks for coins',
    steps: [
      [3, 1.5],
      [4, 3],
      [6, 5],
    ],
    phrases: `
      !bitcoin|btc wallet|address
      !my|the bitcoin|btc|crypto address|wallet
      send|transfer # bitcoin|btc|usd|dollars|$
      pay|transfer|send me|us $|#
      !your|a webcam|camera|front
      recorded|recording|filmed you
      !adult|porn|pornographic|xxx site|sites|website|websites|web|video|videos
      !your contacts|friends relatives|and|family
      malware|trojan|virus|rat on|was|installed
      !i have|hacked|know hacked|your your|password device|account|system|is|computer
      hacked your
      you have # hours|days
      # hours to|after make|pay|payment
      delete|erase the|all video|videos|recording|evidence|files
      !satisfying|pleasuring|masturbating yourself
      double life|screen
      dirty|embarrassing|intimate video|secrets|videos|secret|details
      !no one will know
      !i|we will|ll send|publish|release|share|forward the|this|your video|footage|recording
      operating system of
      !bitcoin adresse
      !ihre|deine kontakte
      ihre|deine webcam|kamera
      !habe sie|dich gefilmt|aufgenommen
      !vos contacts
      votre webcam
      !sus|tus contactos
      cámara web
      !suoi|tuoi contatti
      !portafoglio bitcoin
    `,
  },
  {
    rule: 'TEXT_PHISH',
    about: 'an account that is to be confirmed or lost',
    steps: [
      [3, 1],
      [4, 2],
      [6, 3.5],
    ],
    phrases: `
      !verify|confirm|validate|update|revalidate your|the account|identity|mailbox|e|email|billing|payment|bank|paypal
      !confirm your|account identity|information|ownership|details
      !account|mailbox|email has|will|is been|be suspended|limited|locked|disabled|deactivated|restricted|terminated|blocked
      !your account|mailbox|password|email|access|card|apple|netflix|paypal was|has|will|is|id been|be suspended|expire|limited|expires|full|locked|disabled|expired|restricted|deactivated|blocked
      !account suspended|suspension|limitation|deactivation|termination|verification
      !unusual|suspicious|unauthorized|unauthorised|unrecognized sign|activity|login|log|transaction|attempt
      mailbox|email|storage quota|is|storage full|limit|has|exceeded
      !mailbox quota|storage|is full|limit|almost|exceeded
      !password expires|expiration|expiry|will|expired
      !keep|retain same|current|my password
      !avoid|prevent account|losing|suspension|service|being interruption|access|deactivation|closure|locked
      !undelivered|pending|held|quarantined messages|mails|emails
      !release pending|messages|all your|messages
      click|follow here|below|the|on link|this|to button|below verify|link|confirm|restore|update|review|unlock
      !restore access|your account|full
      within # hours|hrs
      failure to|do comply|so|verify|confirm|update
      !it|your help|mail desk|administrator|admin
      dear|valued customer|client|user|member|account email|holder|user
      your social security number
      !credit card number|and
      !login|log credentials|in details
      !last|final warning|notice|reminder
      !shared|sent a|you document|file|documents|secure with|via you
      !view|review|open|access secured|shared|the document|documents|file|secure
      !voice message|mail|note
      new voicemail|fax
      !multi factor authentication
      scan|scanning the|this qr|code
      !konto wurde|wird gesperrt|eingeschränkt|vorübergehend|deaktiviert|aus
      !ihr konto|postfach|zugang|passwort wurde|läuft|ist|wird
      !bestätigen|verifizieren|aktualisieren sie ihr|ihre|bitte
      !postfach ist voll|fast
      passwort läuft ab|bald
      sehr geehrter|geehrte kunde|nutzer|kundin
      innerhalb von # stunden
      ungewöhnliche|verdächtige aktivität|aktivitäten|anmeldung
      !votre compte|boîte|mot a|sera|est|de été|suspendu|bloqué|limité|passe
      !confirmer|vérifier|mettre vos|votre|à informations|compte|identité|jour
      sous|dans # heures
      !su|tu cuenta ha|será|está sido|suspendida|bloqueada
      !verificar|confirmar|actualizar su|tu|sus cuenta|identidad|datos
      !suo|tuo|il account|conto è|sarà stato|sospeso|bloccato
      !verificare|confermare|aggiornare il|i|la suo|suoi|tuo|tuoi|sua
      entro # ore
    `,
  },
  {
    rule: 'TEXT_PARCEL',
    about: 'a parcel that waits for a fee',
    steps: [
      [3, 1],
      [4, 2],
      [6, 3.5],
    ],
    phrases: `
      !parcel|package|shipment could|is|has|was not|on|waiting|pending|been|held be|hold|delivered|suspended
      !delivery attempt|failed|fee|was|address failed|unsuccessful
      !unable|failed to|delivery deliver|your
      !customs fee|fees|duty|duties|charges|clearance
      !shipping|redelivery|delivery fee|fees|cost|costs
      !reschedule|schedule|confirm your|the|a delivery|redelivery|shipment
      tracking number|code
      incomplete|wrong|incorrect address|delivery
      !pay|payment the|of fee|fees|customs|shipping|$|€
      !ihr|ihre paket|sendung konnte|wartet|wurde|ist
      !zollgebühr|zollgebühren|versandgebühr|versandkosten
      sendungsverfolgung|sendungsnummer
      !votre|de colis|livraison est|n|a|attend
      !frais de livraison|douane|port|dédouanement
      !su|tu paquete|envío no|está|ha
      !gastos de envío|aduana
      !suo|tuo|il pacco|spedizione è|non|in
      !spese di spedizione|dogana
    `,
  },
  {
    rule: 'TEXT_BOSS',
    about: 'an errand that a superior would not give by mail',
    steps: [
      [3, 1],
      [4, 2.5],
      [6, 4],
    ],
    phrases: `
      !gift|itunes|steam|apple|amazon|google card|cards|play
      !scratch off|the|and
      !pictures|photos|images of the cards|codes|back|card
      !are you at|in|available|free your|the|right|at|now desk|office|now|moment
      !i|i'm am|m|in in|currently|a a|in|meeting meeting|a
      !can't|cannot|not talk|take|able calls|on|right|to
      !need|want you to|help run|handle|purchase|get|process|make|complete
      !send me your|the cell|mobile|personal|phone|whatsapp number|phone
      !discreet|confidential|discretion about|matter|until
      !change|update|changed|updated of|our|my|to bank|banking|direct|account|payroll details|account|deposit|information
      !new bank|banking account|details|information
      !wire|bank transfer today|of|to|payment
      !process|make a|this|the wire|payment transfer|today|now
      !outstanding|overdue|attached|pending invoice|payment
      quick|urgent task|favor|request|response|errand
      reimburse|reimbursed you|by|today
      !neue|geänderte|neuen bankverbindung|kontoverbindung|bankdaten
      !überweisung heute|noch|sofort
      !gutscheinkarten|geschenkkarten
      !nouvelles|nos coordonnées bancaires
      !cartes cadeaux
      !nuevos|nueva datos|cuenta bancarios|bancaria
      !tarjetas de regalo
      !nuove coordinate bancarie
    `,
  },
]
