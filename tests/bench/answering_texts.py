"""What people, machines and screening assistants say when they answer: two halves that share no sentence."""

from __future__ import annotations

from typing import Final, Literal

Half = Literal["tune", "report"]
Kind = Literal["human short", "human long", "machine short", "machine long", "screening"]

ENGLISH: Final[dict[Half, dict[Kind, tuple[str, ...]]]] = {
    "tune": {
        "human short": (
            "Hello?",
            "Hello.",
            "Yes?",
            "Hi.",
            "Hello, Miller.",
            "This is Dave.",
            "Who is this?",
            "Good morning.",
            "Yeah, hello?",
            "Karen speaking.",
        ),
        "human long": (
            "Good morning, Baker and Sons, this is Linda, how may I help you?",
            "Thank you for calling Green Valley Dental, this is Amy speaking.",
            "City Motors, service department, Frank speaking.",
            "Hello, this is the reception of the Grand Hotel, what can I do for you?",
            "Northside Veterinary Clinic, can you hold for a moment please?",
            "Hello? Sorry, I was just outside, who is calling?",
            "Johnson residence, who would you like to speak to?",
            "Riverside Pharmacy, good afternoon, how can I help?",
            "Hi, yes, this is Peter, I was expecting your call.",
            "Law offices of Stone and Parker, how may I direct your call?",
        ),
        "machine short": (
            "Leave a message.",
            "Please leave your name and number.",
            "Hi, it's Tom. Leave a message.",
            "This is Sarah, I can't come to the phone.",
            "You've reached Mike. Leave a message.",
            "We are not at home, please call back later.",
            "Please leave a message after the beep.",
            "The person you called is not available.",
        ),
        "machine long": (
            "Hi, you have reached the voicemail of Daniel Cooper. I'm not able to take your call right now. "
            "Please leave your name, your number and a short message, and I will get back to you as soon as I can.",
            "The wireless customer you are calling is not available. Please leave a message after the tone. "
            "When you have finished recording, you may hang up or press one for more options.",
            "Hello, this is the Smith family. We can't come to the phone at the moment, but if you leave a message "
            "after the beep, we will call you back.",
            "Thank you for calling Harbor Insurance. Our office is closed at this time. Our office hours are Monday "
            "through Friday, from nine to five. Please leave a message after the tone.",
            "Your call has been forwarded to an automatic voice message system. Two one two, five five five, zero one "
            "four three, is not available. At the tone, please record your message.",
            "Hey, this is Jenny. I'm probably in a meeting or on another call. Leave me a message, and I'll call you "
            "back. Thanks, bye.",
            "You've reached the desk of Robert Hill. I am out of the office until the third of August. For urgent "
            "matters please call my colleague. Otherwise leave a message after the tone.",
            "Sorry, nobody is available to take your call. To leave a message, wait for the tone.",
        ),
        "screening": (
            "Hi, the person you are calling is using a screening service. Please say your name and why you are "
            "calling.",
            "Hi, if you record your name and reason for calling, I'll see if this person is available.",
            "Please state your name after the tone, and your call will be connected.",
        ),
    },
    "report": {
        "human short": (
            "Hello? Who's there?",
            "Hallo?",
            "Hey.",
            "Yes, hello.",
            "Hi there.",
            "Speaking.",
            "Hello, Anna here.",
            "Good evening.",
            "Jackson.",
            "Yep?",
        ),
        "human long": (
            "Acme Plumbing, this is the front desk, how can I help you?",
            "Good afternoon, you're through to Westfield Garage, Jim speaking.",
            "Hello, Sunny Day Travel, my name is Rachel, what can I do for you today?",
            "Doctor Webb's office, this is Nancy, are you calling about an appointment?",
            "Hi, this is Carol, sorry, it's a bit loud in here.",
            "Thanks for calling Pizza Palace, will that be pickup or delivery?",
            "Hello, hello? I can hear you, go ahead.",
            "Accounting, Bill speaking, who's on the line?",
            "Lakeside Primary School, good morning, Mrs Turner speaking.",
            "Hello there, one second, let me turn down the television.",
        ),
        "machine short": (
            "Hi, leave me a message.",
            "Please leave a message.",
            "Sorry I missed you, leave a message.",
            "We can't take your call right now.",
            "You have reached the Parkers. Please leave a message.",
            "Nobody is here. Please speak after the tone.",
            "Hey, it's Chris, you know what to do.",
            "The number you have dialed is unavailable.",
        ),
        "machine long": (
            "Hello, you've reached Emma Watkins at Delta Systems. I'm either away from my desk or on the phone. Leave "
            "your details and I'll return your call at the earliest opportunity.",
            "Welcome to the voice mailbox of five five five, zero one nine eight. Nobody can take your call at the "
            "moment. Please speak after the tone, and press the pound key when you are done.",
            "Hi there, this is Greg. I can't get to the phone right now. If it's important, send me a text. Otherwise "
            "leave a message and have a great day.",
            "You have reached the after hours line of Maple Street Clinic. If this is an emergency, hang up and dial "
            "the emergency number. For all other calls, leave your name and number after the tone.",
            "The mobile phone you have called is switched off or out of reach. You can leave a message after the tone "
            "or try again later.",
            "Good day. Thank you for calling the Oak Street Bakery. We are open from Tuesday to Saturday. Please leave "
            "your order with your name and telephone number after the signal.",
            "Hi, this is Laura and Ben. We're out having fun. Tell us who you are and what you want, and we might "
            "even call you back.",
            "We're sorry, the person at this extension is on another line. Your call is important to us. To leave a "
            "message, stay on the line until you hear the beep.",
        ),
        "screening": (
            "Hello. This call is being screened by an assistant. Can you tell me your name and the reason for your "
            "call?",
            "Hi, please state your name and why you're calling. I'll check whether she can talk.",
            "The subscriber wants to know who is calling. Go ahead and say your name.",
        ),
    },
}

FOREIGN: Final[dict[Half, dict[str, dict[Kind, tuple[str, ...]]]]] = {
    "tune": {
        "es": {
            "human short": ("¿Diga?", "¿Sí, dígame?"),
            "human long": ("Restaurante La Plaza, buenas tardes, ¿en qué puedo ayudarle?",),
            "machine short": ("Deje su mensaje.",),
            "machine long": (
                "Hola, ha llamado a la familia García. En este momento no podemos atenderle. Por favor, deje su "
                "mensaje después de la señal y le llamaremos lo antes posible.",
            ),
        },
        "de": {
            "human short": ("Ja, hallo?", "Schmidt."),
            "human long": ("Praxis Doktor Weber, guten Tag, was kann ich für Sie tun?",),
            "machine short": ("Bitte sprechen Sie nach dem Ton.",),
            "machine long": (
                "Guten Tag, Sie sind verbunden mit dem Anschluss der Familie Bauer. Wir sind zur Zeit nicht zu Hause. "
                "Bitte hinterlassen Sie eine Nachricht nach dem Signalton.",
            ),
        },
    },
    "report": {
        "fr": {
            "human short": ("Allô ?", "Oui, bonjour ?"),
            "human long": ("Garage du Lac, bonjour, que puis-je faire pour vous ?",),
            "machine short": ("Laissez un message.",),
            "machine long": (
                "Bonjour, vous êtes bien sur le répondeur de Martine. Je ne suis pas disponible pour le moment. "
                "Laissez-moi un message après le bip sonore et je vous rappellerai.",
            ),
        },
        "it": {
            "human short": ("Pronto?", "Sì, chi parla?"),
            "human long": ("Studio Rossi, buongiorno, come posso aiutarla?",),
            "machine short": ("Lasciate un messaggio.",),
            "machine long": (
                "Risponde la segreteria telefonica. In questo momento non siamo in casa. Lasciate un messaggio dopo "
                "il segnale acustico e vi richiameremo al più presto.",
            ),
        },
    },
}

PROMPTS: Final[dict[Kind, tuple[tuple[str, ...], ...]]] = {
    # Recordings of Debian's Asterisk packages, said one after the other; digits/N are added where a name ends in "#".
    "human short": (
        ("hello",),
        ("goodbye",),
        ("vm-goodbye",),
        ("sorry",),
        ("im-sorry",),
        ("hello-world",),
        ("privacy-thankyou",),
        ("auth-thankyou",),
        ("one-moment-please",),
    ),
    "human long": (
        ("hello", "one-moment-please"),
        ("pls-hold-while-try",),
        ("queue-thankyou",),
        ("dir-welcome",),
        ("transfer",),
        ("vm-dialout",),
        ("hello", "dir-welcome"),
        ("tt-somethingwrong",),
    ),
    "machine short": (
        ("vm-nobodyavail",),
        ("vm-extension", "#", "vm-isunavail"),
        ("vm-extension", "#", "vm-isonphone"),
        ("number-not-answering",),
    ),
    "machine long": (
        ("vm-theperson", "#", "vm-isunavail", "vm-intro"),
        ("vm-theperson", "#", "vm-isonphone", "vm-intro"),
        ("vm-nobodyavail", "vm-intro"),
        ("vm-intro",),
        ("ss-noservice",),
        ("privacy-unident", "vm-intro"),
    ),
    "screening": (("priv-recordintro",),),
}
